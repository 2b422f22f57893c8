"""Publishes weight versions to the policy servers while they go on generating.

A version is staged on a server, then swapped in: pause (running requests wait), load, resume; all
servers at the same time, none waiting for another. What came of it is told to the roster
(``learner.coordination.roster``), which alone knows who may be asked: a server that fails is dead
there, with a named cause. A watcher each brings servers back, also those that were restarted; the
parity check then lets them in. A publish goes to those that answer, so one that hangs delays one.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import torch

from common.errors import PolicyServerError
from common.waits.catalogue import Part, WaitKind
from common.waits.register import subject, waiting
from common.wire.sockets import Door, Wire
from common.wire.weights import ADAPTER_A, ADAPTER_B
from learner.coordination.membership import Membership
from learner.coordination.roster import LiveServer
from learner.weights.channel import Snapshot, StagingChannel, take_snapshot
from learner.weights.served import Update, UpdatedServer

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 256
"""Updates under way; threads are made as they are needed."""
_TELL_EVERY_S = 15.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """What one publish took.

    ``seconds_staging`` and ``seconds_paused`` are the longest of any server; ``acknowledged`` names
    the servers that have taken the new version, ``failed`` the others and why.
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
        membership: Membership,
        door: Door,
        wire: Wire,
        *,
        stage_timeout_s: float = 60.0,
        request_timeout_s: float = 60.0,
        watch_every_s: float = 5.0,
        return_s: float = 0.0,
        was_taken: bool = False,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Publish to the servers of the roster, whose hosts fetch snapshots at ``door``.

        They are spoken to over ``wire``, which has the learner's keys.

        Where all are lost, a publish after the first waits ``return_s`` seconds until one is back,
        or until ``give_up`` says so; also the first one, where servers took weights of an earlier
        learner of the run (``was_taken``): they can, and may just have been killed.
        """
        self._return_s, self._give_up = return_s, give_up
        self._membership = membership
        self._channel = StagingChannel(door)
        self._make = partial(
            UpdatedServer,
            membership=membership,
            channel=self._channel,
            wire=wire,
            stage_timeout_s=stage_timeout_s,
            request_timeout_s=request_timeout_s,
        )
        self._servers: dict[str, UpdatedServer] = {}
        """As they were needed; who belongs to the run is in the roster alone."""
        self._meeting = threading.Lock()
        self._watch_every_s = watch_every_s
        self._snapshot: Snapshot | None = None
        self._base = ""
        self._was_taken = was_taken
        """Whether a version was ever published."""
        self._publishing = threading.Lock()
        self._offering = threading.Lock()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="weight-update")
        self._meeter = threading.Thread(target=self._meet, name="weight-meet", daemon=True)
        self._watchers: list[threading.Thread] = []

    def start(self) -> None:
        """Listen for workers and watch over the servers."""
        self._channel.start()
        self._meeter.start()

    def stop(self) -> None:
        """Stop watching and close the sockets; the servers keep their weights."""
        self._stopping.set()
        deadline = time.monotonic() + 10
        for watcher in (self._meeter, *self._watchers):
            watcher.join(timeout=max(0.0, deadline - time.monotonic()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._channel.stop()

    def publish(self, version: int, state: Mapping[str, torch.Tensor]) -> PublishResult:
        """Make all servers that took the version before sample with ``state`` as ``version``.

        Where none did, as at first, all are tried.

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
            with self._offering:
                self._snapshot = snapshot
                self._channel.offer(snapshot)
            with self._membership.roster() as roster:
                servers = roster.to_update()
            targets = [self._updated(server) for server in servers]
            updates = self._update_all(targets, version)
            if self._was_taken:
                with subject(Part.PUBLISH, str(version)), waiting(WaitKind.SERVER_BACK):
                    self._wait_for_return(version)
            result = self._result(snapshot, updates)
        log.info(
            "published weights version=%d servers=%d bytes=%d staging_s=%.3f paused_s=%.3f "
            "load=%s",
            version, len(result.acknowledged), result.nbytes, result.seconds_staging,
            result.seconds_paused, self._membership.loads(),
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

    def _update_all(self, targets: Sequence[UpdatedServer], version: int) -> list[Update]:
        """Update ``targets`` at the same time; says while it waits, for whom."""
        began = time.monotonic()
        jobs = {self._pool.submit(_update, s, version): s for s in targets}
        under_way: set[Future[Update]] = set(jobs)
        while under_way:
            _, under_way = wait(under_way, timeout=_TELL_EVERY_S)
            if under_way:
                log.info(
                    "waiting for policy servers to take weights version=%d servers=%s since_s=%.0f",
                    version, ",".join(jobs[job].name for job in under_way),
                    time.monotonic() - began,
                )  # fmt: skip
        return [job.result() for job in jobs]

    def _wait_for_return(self, version: int) -> None:
        """Until a watcher has brought a server to ``version``; see there for what went wrong."""
        began = told = time.monotonic()
        while not self._is_held(version) and not self._give_up():
            now = time.monotonic()
            if now - began >= self._return_s or self._stopping.wait(_LOOK_EVERY_S):
                return
            if now - told >= _TELL_EVERY_S:
                told = now
                log.warning("waiting for a policy server to come back version=%d since_s=%.0f",
                            version, now - began)  # fmt: skip

    def _is_held(self, version: int) -> bool:
        with self._membership.roster() as roster:
            return bool(roster.holding(version))

    def _result(self, snapshot: Snapshot, updates: Sequence[Update]) -> PublishResult:
        version = snapshot.manifest.version
        with self._membership.roster() as roster:
            taken = roster.holding(version)
            self._was_taken = self._was_taken or bool(taken)
            if taken:
                roster.published(version)
            names = {server.name for server in taken}
            causes = roster.causes.items()
            failed = {n: why for n, why in causes if n not in names}
        if not taken:
            listed = "; ".join(f"{name}: {cause}" for name, cause in failed.items())
            raise PolicyServerError(f"no policy server took weights of version {version}: {listed}")
        return PublishResult(
            version=version,
            seconds_staging=max(update.seconds_staging for update in updates),
            seconds_paused=max(update.seconds_paused for update in updates),
            nbytes=snapshot.nbytes,
            acknowledged=tuple(server.name for server in taken),
            failed=failed,
        )

    # ---- watching ----------------------------------------------------------------------------

    def _updated(self, seen: LiveServer) -> UpdatedServer:
        """The server, to work with it; a stranger is watched over from now on."""
        with self._meeting:
            server = self._servers.get(seen.name)
            if server is None or server.address != seen.address:
                server = self._servers[seen.name] = self._make(seen)
                watcher = threading.Thread(
                    target=self._watch, args=(server,), name="weight-watch", daemon=True
                )
                watcher.start()
                alive = (one for one in self._watchers if one.is_alive())
                self._watchers = [*alive, watcher]
            return server

    def _meet(self) -> None:
        """Make the acquaintance of who joins."""
        while True:
            with self._membership.roster() as roster:
                servers = roster.servers
            for server in servers:
                self._updated(server)
            if self._stopping.wait(self._watch_every_s):
                return

    def _watch(self, server: UpdatedServer) -> None:
        """Bring a server back that failed or was restarted since the last publish; until it leaves.

        From then on it is sent nothing. Should it come back, it is a stranger.
        """
        while not self._stopping.wait(self._watch_every_s):
            with self._meeting:
                if not server.belongs:
                    if self._servers.get(server.name) is server:
                        del self._servers[server.name]
                        self._channel.forget(server.name)
                    return
            try:
                with subject(Part.WATCH, server.name):
                    self._bring_back(server)
            except Exception:
                log.exception("watching a policy server failed, going on server=%s", server.name)

    def _bring_back(self, server: UpdatedServer) -> None:
        self._membership.tick()
        server.introduce()
        with self._offering:
            version = self._newest_version()
        if version is not None and not server.is_sound():
            server.update(version)

    def _newest_version(self) -> int | None:
        snapshot = self._snapshot
        return None if snapshot is None else snapshot.manifest.version


def _update(server: UpdatedServer, version: int) -> Update:
    """Update a server, as part of the publish of ``version``."""
    with subject(Part.PUBLISH, str(version)):
        return server.update(version)
