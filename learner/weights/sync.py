"""Publishes weight versions to the policy servers while they go on generating.

A version is first staged on every server, then each server swaps it in: pause (running requests
wait), load, resume. A server that fails is taken out of rotation with a named cause and brought
back by the next publish or by the watcher, which also finds servers that were restarted.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from common.errors import PolicyServerError
from common.weight_wire import ADAPTER_A, ADAPTER_B
from learner.weights.server_control import ServerControl
from learner.weights.staging import Snapshot, StagingChannel, take_snapshot

log = logging.getLogger(__name__)

TORN = "torn"
"""Version label of a server whose update failed half-way; clients refuse its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """What one publish took.

    ``seconds_paused`` is the longest pause of any server; ``acknowledged`` names the servers
    that sample with the new version, ``failed`` the others and why.
    """

    version: int
    seconds_staging: float
    seconds_paused: float
    nbytes: int
    acknowledged: tuple[str, ...]
    failed: dict[str, str]


@dataclass(kw_only=True, slots=True)
class _Server:
    control: ServerControl
    workers: int = 0
    version: int | None = None
    failure: str = "not attached yet"


class WeightPublisher:
    """Brings all policy servers to the learner's newest weights. Thread-safe; calls block."""

    def __init__(
        self,
        server_urls: Sequence[str],
        *,
        bind: str = "tcp://127.0.0.1:*",
        stage_timeout_s: float = 60.0,
        request_timeout_s: float = 60.0,
        watch_every_s: float = 5.0,
    ) -> None:
        """Publish to ``server_urls``; workers fetch snapshots from ``bind``."""
        self._servers = [
            _Server(control=ServerControl(url, timeout_s=request_timeout_s)) for url in server_urls
        ]
        self._channel = StagingChannel(bind)
        self._stage_timeout_s = stage_timeout_s
        self._watch_every_s = watch_every_s
        self._snapshot: Snapshot | None = None
        self._base = ""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="weight-watch", daemon=True)

    def start(self) -> None:
        """Listen for workers and watch over the servers."""
        self._channel.start()
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching and close the sockets; the servers keep their weights."""
        self._stopping.set()
        self._watcher.join(timeout=10)
        self._channel.stop()

    def publish(self, version: int, state: Mapping[str, torch.Tensor]) -> PublishResult:
        """Make all servers sample with ``state`` as ``version``.

        Args:
            version: not negative, higher than before.
            state: full tensors under Hugging Face names; tied weights once. Factors of adapters
                may be among them, see ``common.weight_wire``; once they were, they may come alone.

        Raises:
            ValueError: adapters came alone first.
            PolicyServerError: no server took it; names the cause for each.
        """
        with self._lock:
            started = time.monotonic()
            self._snapshot = self._take_snapshot(version, state)
            self._channel.offer(self._snapshot)
            for server in self._servers:
                self._guard(server, self._stage)
            seconds_staging = time.monotonic() - started
            pauses = [self._guard(server, self._swap) for server in self._servers]
            result = self._result(seconds_staging, max(pauses))
        log.info(
            "published weights version=%d servers=%d bytes=%d staging_s=%.3f paused_s=%.3f",
            version, len(result.acknowledged), result.nbytes, seconds_staging,
            result.seconds_paused,
        )  # fmt: skip
        return result

    def _take_snapshot(self, version: int, state: Mapping[str, torch.Tensor]) -> Snapshot:
        if not all(name.endswith((ADAPTER_A, ADAPTER_B)) for name in state):
            snapshot = take_snapshot(version, state)
            self._base = snapshot.manifest.checksum
            return snapshot
        if not self._base:
            raise ValueError("adapters were published before the weights they belong to")
        return take_snapshot(version, state, base=self._base)

    def versions(self) -> dict[str, int | None]:
        """The version each server acknowledged last; None while it is out of rotation."""
        return {s.control.url: None if s.failure else s.version for s in self._servers}

    def _result(self, seconds_staging: float, seconds_paused: float) -> PublishResult:
        snapshot = self._current()
        failed = {s.control.url: s.failure for s in self._servers if s.failure}
        if len(failed) == len(self._servers):
            listed = "; ".join(f"{url}: {cause}" for url, cause in failed.items())
            raise PolicyServerError(
                f"no policy server took weights of version {snapshot.manifest.version}: {listed}"
            )
        return PublishResult(
            version=snapshot.manifest.version,
            seconds_staging=seconds_staging,
            seconds_paused=seconds_paused,
            nbytes=snapshot.nbytes,
            acknowledged=tuple(s.control.url for s in self._servers if not s.failure),
            failed=failed,
        )

    def _current(self) -> Snapshot:
        if self._snapshot is None:
            raise PolicyServerError("no weights were published yet")
        return self._snapshot

    def _guard(self, server: _Server, step: Callable[[_Server], float]) -> float:
        """Run one step for a server; a failure takes it out of rotation, with the cause."""
        try:
            return step(server)
        except PolicyServerError as error:
            if not server.failure:
                log.warning("took server out of rotation server=%s reason=%s",
                            server.control.url, error)  # fmt: skip
            server.failure = str(error)
            server.version = None
            self._channel.forget(server.control.url)
            return 0.0

    def _stage(self, server: _Server) -> float:
        version = self._current().manifest.version
        label = server.control.version()
        if server.failure or label != str(server.version):
            server.workers = server.control.workers()
            self._channel.forget(server.control.url)
            server.control.attach(self._channel.endpoint)
            server.failure = ""
        self._channel.wait_staged(
            server.control.url,
            workers=server.workers,
            version=version,
            timeout_s=self._stage_timeout_s,
        )
        return 0.0

    def _swap(self, server: _Server) -> float:
        """Pause, load, resume, verify; the seconds the server was paused."""
        if server.failure:
            return 0.0
        version = self._current().manifest.version
        started = time.monotonic()
        try:
            server.control.pause()
            server.control.swap(version)
        except PolicyServerError:
            with contextlib.suppress(PolicyServerError):
                server.control.relabel(TORN)
            raise
        finally:
            server.control.resume()
        paused = time.monotonic() - started
        label = server.control.version()
        if label != str(version):
            raise PolicyServerError(
                f"policy server {server.control.url} reports version {label} after the update "
                f"to version {version}"
            )
        server.version = version
        return paused

    def _watch(self) -> None:
        """Bring servers back that failed or were restarted since the last publish."""
        while not self._stopping.wait(self._watch_every_s):
            with self._lock:
                if self._snapshot is None:
                    continue
                for server in self._servers:
                    self._guard(server, self._bring_back)

    def _bring_back(self, server: _Server) -> float:
        version = self._current().manifest.version
        if not server.failure and server.control.version() == str(version):
            return 0.0
        self._stage(server)
        paused = self._swap(server)
        log.info("brought server back server=%s version=%d", server.control.url, version)
        return paused
