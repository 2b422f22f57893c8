"""The coordinator on the network: one thread, one ROUTER socket, one lock around the pure state.

consumes   hellos, heartbeats and trajectories of the actors
produces   task leases, acks, complete batches for the training loop
waits for  a message, a wake-up by the training loop, or the next look at the clock
unblocked by  actors; ``take_batch`` is unblocked by the trajectory that completes a batch

Every trajectory is acknowledged once its fate is decided, also a duplicate; an actor repeats
what was not. No message ends the thread: what cannot be read is answered, counted and forgotten.
Only members of the run get beyond the handshake, and each speaks under its own name alone.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from common.errors import LZeroError, ProtocolError
from common.telemetry.quiet_log import QuietLog
from common.wire.codec import Record, claim_of, decode, encode
from common.wire.records import Task, Trajectory
from common.wire.session import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
)
from common.wire.sockets import Door, Parcel, PeerLimits
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.ledger import save_ledger
from learner.coordination.reception import greet
from learner.coordination.store import TrajectoryStore

log = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 64
"""Handled before the training loop gets its turn at the lock."""

ACTOR_LIMITS = PeerLimits(message_bytes=64 << 20, queued_in=1000, queued_out=16_384)
"""Of one actor; most of a trajectory is the text of all its steps."""

_TICK_MS = 500

_MAX_REASON_CHARACTERS = 500
"""Of what is said and logged of a message that cannot be used; it may quote all of it."""

_SAME_VERSION = "run the same version of l-zero on both sides"


class Intake:
    """Runs a coordinator behind a door; a context manager."""

    def __init__(
        self,
        coordinator: Coordinator,
        store: TrajectoryStore,
        door: Door,
        *,
        version: int = 0,
    ) -> None:
        """Serve at ``door``, which is closed at the end; the learner is at weight ``version``."""
        self._coordinator = coordinator
        self._store = store
        self._door = door
        self._quiet = QuietLog(log)
        self._learner_version = version
        self._error: BaseException | None = None
        self._stopping = False
        self._draining: Drain | None = None
        self._drained: set[str] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and close every socket."""
        with self._changed:
            self._stopping = True
            self._door.wake()
        self._thread.join(timeout=10)
        self._store.close()

    # ---- called by the training loop ---------------------------------------------------------

    def take_batch(
        self,
        *,
        learner_version: int,
        timeout_s: float,
        give_up: Callable[[], bool] = lambda: False,
    ) -> list[Trajectory] | None:
        """The next batch, as soon as it is complete; None once ``give_up`` says so.

        Raises:
            LZeroError: none came in time; says what it was waiting for.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._learner_version = learner_version
            while True:
                self._check()
                if give_up():
                    return None
                batch = self._coordinator.take_batch(learner_version=learner_version)
                if batch is not None:
                    self._door.wake()
                    return batch
                self._wait(deadline, f"a batch for step {learner_version + 1}", timeout_s)

    def acknowledge(self, version: int) -> None:
        """Every policy server in rotation now samples with this version, or a later one."""
        with self._changed:
            self._coordinator.version = version
            self._door.wake()

    def begin_evaluation(self, tasks: Sequence[Task], *, temperature: float) -> None:
        """Run these tasks before any further training task."""
        with self._changed:
            self._coordinator.begin_evaluation(tasks, temperature=temperature)
            self._door.wake()

    def finish_evaluation(
        self, *, timeout_s: float, give_up: Callable[[], bool] = lambda: False
    ) -> list[Trajectory] | None:
        """The trajectories of the evaluation begun last, when all are in; see ``take_batch``."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._check()
                if give_up():
                    return None
                finished = self._coordinator.take_evaluation()
                if finished is not None:
                    return finished
                self._wait(deadline, "the held-out evaluation", timeout_s)

    def ledger(self) -> bytes:
        """The coordinator's state as bytes, for the checkpoint."""
        with self._changed:
            return save_ledger(self._coordinator)

    def counters(self) -> Counters:
        """A copy of the counters as they are now."""
        with self._changed:
            return copy.deepcopy(self._coordinator.counters)

    def drain(self, reason: str, *, timeout_s: float, finish_s: float = 0.0) -> None:
        """Tell every actor that no more tasks will come, and wait until all are gone.

        Args:
            reason: for their logs.
            timeout_s: longest wait.
            finish_s: what they may finish in this time they deliver; the rest they hand back.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._draining = Drain(reason=reason, finish_s=finish_s)
            self._door.wake()
            while self._coordinator.sessions and time.monotonic() < deadline:
                self._changed.wait(0.2)
            if left := sorted(self._coordinator.sessions.values()):
                log.warning("actors did not leave actors=%s", ",".join(left))

    def _wait(self, deadline: float, what: str, timeout_s: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise LZeroError(
                f"learner: waited {timeout_s:.0f} s for {what}: {self._coordinator.waiting_for()}"
            )
        self._changed.wait(min(remaining, 1.0))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._door.wait(_TICK_MS)
                self._receive_some()
                with self._changed:
                    self._coordinator.tick(time.monotonic())
                    self._changed.notify_all()
                    self._hand_out()
        except BaseException as error:
            log.exception("intake failed")
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._door.close()

    def _receive_some(self) -> None:
        """Handle what is there, but only so much before others get their turn."""
        for _ in range(_MESSAGES_AT_ONCE):
            parcel = self._door.receive()
            if parcel is None:
                return
            if _name(parcel.identity).partition("#")[0] != parcel.member:
                self._quiet.warning(
                    "ignored who speaks under a name that is not its own", "from=%s as=%r",
                    parcel.member, parcel.identity[:40],
                )  # fmt: skip
                continue
            self._read(parcel)

    def _read(self, parcel: Parcel) -> None:
        identity, frames = parcel.identity, parcel.frames
        try:
            record = decode(frames)
        except ProtocolError as error:
            self._refuse(identity, frames, str(error))
            return
        try:
            with self._changed:
                self._handle(identity, record, sum(frame.nbytes for frame in frames))
        except Exception as error:  # one message never ends the run
            self._quiet.exception("message dropped", "kind=%s", type(record).__name__)
            self._refuse(identity, frames, f"{type(error).__name__}: {error}")

    def _refuse(self, identity: bytes, frames: Sequence[memoryview], reason: str) -> None:
        """Answer a message that cannot be used; the lease that it was about is over."""
        reason = reason[:_MAX_REASON_CHARACTERS]
        self._quiet.warning("message refused", "from=%r reason=%s", identity[:40], reason)
        kind, lease_id = claim_of(frames)
        name = _name(identity)
        with self._changed:
            if kind == Hello.__name__:
                self._send(identity, Refused(reason=f"{reason}; {_SAME_VERSION}"))
            elif name not in self._coordinator.sessions:
                self._send(identity, HelloWanted())
            else:
                self._send(identity, Rejected(reason=reason))
                if self._coordinator.withdraw(name, lease_id, "malformed", reason):
                    self._send(identity, Ack(trajectory_id=lease_id))

    def _handle(self, identity: bytes, record: Record, num_bytes: int) -> None:
        now, name = time.monotonic(), _name(identity)
        if isinstance(record, Hello):
            self._send(identity, greet(self._coordinator, identity, record, now))
        elif not self._coordinator.heard(name, now):
            self._quiet.warning("message without hello", "from=%r", identity[:40])
            self._send(identity, HelloWanted())
        elif isinstance(record, Trajectory):
            self._trajectory(identity, record, num_bytes, now)
        elif isinstance(record, Heartbeat):
            self._send(identity, HeartbeatAck(sent=self._coordinator.heartbeat(name, record)))
            self._drained.discard(name)  # who has heard of the drain beats no more
        elif isinstance(record, Leave):
            lost = self._coordinator.leave(name, "actor_left")
            log.info(
                "actor left actor=%s reason=%s leases=%d", name.partition("#")[0], record.reason,
                lost,
            )  # fmt: skip

    def _trajectory(
        self, identity: bytes, trajectory: Trajectory, num_bytes: int, now: float
    ) -> None:
        fresh = self._coordinator.receive(
            _name(identity),
            trajectory,
            learner_version=self._learner_version,
            now=now,
            num_bytes=num_bytes,
        )
        self._send(identity, Ack(trajectory_id=trajectory.trajectory_id))
        if fresh:
            self._keep(trajectory)

    def _keep(self, trajectory: Trajectory) -> None:
        """Into the store, which people read; training does not depend on it."""
        try:
            self._store.append(trajectory)
        except (OSError, ValueError) as error:
            self._quiet.warning("trajectory not stored", "reason=%s", error)

    def _hand_out(self) -> None:
        if self._draining is not None:
            for name in self._coordinator.sessions.keys() - self._drained:
                self._send(name.encode(), self._draining)
                self._drained.add(name)
            return
        for name, lease in self._coordinator.hand_out(now=time.monotonic()):
            try:
                self._send(name.encode(), lease)
            except Exception as error:  # a task that no wire carries is that task's failure
                self._quiet.exception("lease not sent", "lease=%s", lease.lease_id)
                text = f"task '{lease.task.task_id}' cannot be sent: {error}"
                self._coordinator.withdraw(name, lease.lease_id, "unsendable", text)

    def _send(self, identity: bytes, record: Record) -> None:
        self._door.send(identity, encode(record))


def _name(identity: bytes) -> str:
    """A session's identity as the coordinator knows it; of no session if it is not UTF-8."""
    return identity.decode("utf-8", "replace")
