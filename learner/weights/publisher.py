"""Publishes weight versions to the policy servers while they go on generating.

A version is staged on a server, then swapped in: pause (running requests wait), load, resume; all
servers at the same time, none waiting for another. A server that fails is taken out of rotation
with a named cause; its watcher brings it back, and also finds servers that were restarted. A
publish goes to the servers in rotation, so one that hangs delays one publish.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from common.errors import PolicyServerError
from common.places import ServerPlace
from common.wire.sockets import Door
from common.wire.weights import ADAPTER_A, ADAPTER_B
from learner.weights.channel import Snapshot, StagingChannel, take_snapshot
from learner.weights.served import Update, UpdatedServer

log = logging.getLogger(__name__)

_TELL_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """What one publish took.

    ``seconds_staging`` and ``seconds_paused`` are the longest of any server; ``acknowledged`` names
    the servers that sample with the new version, ``failed`` the others and why.
    """

    version: int
    seconds_staging: float
    seconds_paused: float
    nbytes: int
    acknowledged: tuple[str, ...]
    failed: dict[str, str]


class WeightPublisher:
    """Brings all policy servers to the learner's newest weights. Thread-safe; calls block."""

    def __init__(
        self,
        servers: Sequence[ServerPlace],
        door: Door,
        *,
        stage_timeout_s: float = 60.0,
        request_timeout_s: float = 60.0,
        watch_every_s: float = 5.0,
    ) -> None:
        """Publish to ``servers``, whose workers fetch snapshots at ``door``."""
        self._channel = StagingChannel(door)
        self._servers = [
            UpdatedServer(
                place,
                self._channel,
                stage_timeout_s=stage_timeout_s,
                request_timeout_s=request_timeout_s,
            )
            for place in servers
        ]
        self._watch_every_s = watch_every_s
        self._snapshot: Snapshot | None = None
        self._base = ""
        self._publishing = threading.Lock()
        self._rotation = threading.Lock()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(len(self._servers), thread_name_prefix="weight-update")
        self._watchers = [
            threading.Thread(target=self._watch, args=(server,), name="weight-watch", daemon=True)
            for server in self._servers
        ]

    def start(self) -> None:
        """Listen for workers and watch over the servers."""
        self._channel.start()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop watching and close the sockets; the servers keep their weights."""
        self._stopping.set()
        deadline = time.monotonic() + 10
        for watcher in self._watchers:
            watcher.join(timeout=max(0.0, deadline - time.monotonic()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._channel.stop()

    def publish(self, version: int, state: Mapping[str, torch.Tensor]) -> PublishResult:
        """Make all servers in rotation sample with ``state`` as ``version``.

        Where none is in rotation, as at first, all are tried.

        Args:
            version: not negative, higher than before.
            state: full tensors under Hugging Face names; tied weights once. Factors of adapters
                may be among them, see ``common.wire.weights``; once they were, they may come alone.

        Raises:
            ValueError: adapters came alone first.
            PolicyServerError: no server took it; names the cause for each.
        """
        with self._publishing:
            snapshot = self._take_snapshot(version, state)
            with self._rotation:
                self._snapshot = snapshot
                self._channel.offer(snapshot)
                targets = [s for s in self._servers if not s.failure] or self._servers
            updates = self._update_all(targets, version)
            result = self._result(snapshot, updates)
        log.info(
            "published weights version=%d servers=%d bytes=%d staging_s=%.3f paused_s=%.3f",
            version, len(result.acknowledged), result.nbytes, result.seconds_staging,
            result.seconds_paused,
        )  # fmt: skip
        return result

    def in_rotation(self) -> tuple[str, ...]:
        """The servers that sample with what was published last."""
        return tuple(s.url for s in self._servers if not s.failure)

    def take_out(self, url: str, reason: str) -> None:
        """Take a server out of rotation that did not do its work; its watcher sees to it."""
        for server in self._servers:
            if server.url == url:
                server.fail(reason)

    def _take_snapshot(self, version: int, state: Mapping[str, torch.Tensor]) -> Snapshot:
        if not all(name.endswith((ADAPTER_A, ADAPTER_B)) for name in state):
            snapshot = take_snapshot(version, state)
            self._base = snapshot.manifest.checksum
            return snapshot
        if not self._base:
            raise ValueError("adapters were published before the weights they belong to")
        return take_snapshot(version, state, base=self._base)

    def _update_all(self, targets: Sequence[UpdatedServer], version: int) -> list[Update]:
        """Update ``targets`` at the same time; says while it waits, for whom."""
        began = time.monotonic()
        jobs = {self._pool.submit(s.update, version, enter=True): s for s in targets}
        under_way: set[Future[Update]] = set(jobs)
        while under_way:
            _, under_way = wait(under_way, timeout=_TELL_EVERY_S)
            if under_way:
                log.info(
                    "waiting for policy servers to take weights version=%d servers=%s since_s=%.0f",
                    version, ",".join(jobs[job].url for job in under_way),
                    time.monotonic() - began,
                )  # fmt: skip
        return [job.result() for job in jobs]

    def _result(self, snapshot: Snapshot, updates: Sequence[Update]) -> PublishResult:
        failed = {s.url: s.failure for s in self._servers if s.failure}
        if len(failed) == len(self._servers):
            listed = "; ".join(f"{url}: {cause}" for url, cause in failed.items())
            raise PolicyServerError(
                f"no policy server took weights of version {snapshot.manifest.version}: {listed}"
            )
        return PublishResult(
            version=snapshot.manifest.version,
            seconds_staging=max(update.seconds_staging for update in updates),
            seconds_paused=max(update.seconds_paused for update in updates),
            nbytes=snapshot.nbytes,
            acknowledged=self.in_rotation(),
            failed=failed,
        )

    # ---- watching ----------------------------------------------------------------------------

    def _watch(self, server: UpdatedServer) -> None:
        """Bring a server back that failed or was restarted since the last publish."""
        while not self._stopping.wait(self._watch_every_s):
            try:
                self._bring_back(server)
            except Exception:
                log.exception("watching a policy server failed, trying again server=%s", server.url)

    def _bring_back(self, server: UpdatedServer) -> None:
        version = self._newest_version()
        if version is None or server.is_sound():
            return
        server.update(version, enter=False)
        with self._rotation:
            was_out = bool(server.failure)
            if self._newest_version() == version and server.enter(version) and was_out:
                log.info("brought server back server=%s version=%d", server.url, version)

    def _newest_version(self) -> int | None:
        snapshot = self._snapshot
        return None if snapshot is None else snapshot.manifest.version
