"""The coordinator on the network: one thread, one ROUTER socket, one lock around the pure state.

consumes   hellos, heartbeats and trajectories of the actors
produces   task leases, acks, complete batches for the training loop
waits for  a message, a wake-up by the training loop or the journal, the next look at the clock
unblocked by  actors; ``take_batch`` is unblocked by the trajectory that completes a batch

Every trajectory is acknowledged once its fate is decided and on the disk, also a duplicate; an
actor repeats what was not. While the journal is played, actors are welcomed, but nothing is handed
out. No message ends the thread: what cannot be read is answered, counted and forgotten.
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
from common.wire.sockets import Door, Parcel, PeerLimits, UndeliverableError
from learner.coordination.changes import Change, to_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.ledger import save_ledger
from learner.coordination.outbox import Letter, Outbox
from learner.coordination.reception import greet
from learner.coordination.replay import Replay
from learner.coordination.store import TrajectoryStore
from learner.journal.interface import Journal, NoJournal

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
        journal: Journal | None = None,
        replay: Replay | None = None,
    ) -> None:
        """Serve at ``door``, which is closed at the end; the learner is at weight ``version``.

        What happens goes into ``journal``, from ``go_live`` on where there is a ``replay``: until
        then whoever plays that has the groups of the coordinator for himself.
        """
        self._coordinator = coordinator
        self._journal: Journal = journal or NoJournal()
        self._replay = replay
        self._outbox = Outbox()
        self.blocked_s = 0.0
        """Seconds in which the training loop has waited for the journal."""
        self._store = store
        self._door = door
        self._quiet = QuietLog(log)
        self._learner_version = version
        self._error: BaseException | None = None
        self._stopping = False
        self._draining: Drain | None = None
        self._drained: set[str] = set()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._written = threading.Condition(lock)
        """Notified by the journal alone: a commit is no news for who waits for a batch."""
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        if self._replay is None:
            self._go_live()
        self._journal.on_durable = self._on_durable
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
        """The next batch, once it is complete and in the journal; None once ``give_up`` says so.

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
                    self._wait_for_journal(deadline, timeout_s)
                    return batch
                self._wait(deadline, f"a batch for step {learner_version + 1}", timeout_s)

    def go_live(self) -> None:
        """The journal has been played and its weights published: tasks are handed out now."""
        with self._changed:
            if self._replay is not None:
                self._go_live()
                self._door.wake()

    def _go_live(self) -> None:
        self._replay = None
        self._coordinator.groups.note = self._note
        self._coordinator.groups.restart(time.monotonic())

    def _note(self, change: Change) -> None:
        self._journal.append(to_record(change))

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

    def ledger(self, *, step: int = 0) -> bytes:
        """The coordinator's state as bytes, for the checkpoint of ``step``."""
        with self._changed:
            if self._replay is not None:
                return save_ledger(self._coordinator, journal=self._replay.serial)
            return save_ledger(self._coordinator, journal=self._journal.begin_segment(step))

    def forget_before(self, checkpoint: int | None) -> None:
        """``checkpoint`` is the oldest that is kept: the journal may drop what came before it."""
        if checkpoint is not None:
            self._journal.forget_before(checkpoint)

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

    def _wait(
        self,
        deadline: float,
        what: str,
        timeout_s: float,
        *,
        on: threading.Condition | None = None,
    ) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise LZeroError(
                f"learner: waited {timeout_s:.0f} s for {what}: {self._coordinator.waiting_for()}"
            )
        (on or self._changed).wait(min(remaining, 1.0))

    def _wait_for_journal(self, deadline: float, timeout_s: float) -> None:
        """Nothing is trained on that a crash could forget."""
        began, needed = time.monotonic(), self._journal.appended
        while self._journal.durable < needed:
            self._check()
            what = "the disk to take the batch into the journal"
            self._wait(deadline, what, timeout_s, on=self._written)
        self.blocked_s += time.monotonic() - began

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._door.wait(_TICK_MS)
                has_news = self._wait_for_room() if self._journal.is_full else self._receive_some()
                with self._changed:
                    if self._replay is None:
                        self._coordinator.tick(time.monotonic())
                        self._hand_out()
                    if has_news:
                        self._changed.notify_all()
                    self._send_what_is_safe()
        except BaseException as error:
            log.exception("intake failed")
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._door.close()

    def _wait_for_room(self) -> bool:
        """The disk is behind: actors keep what they have until it is not. There is no news."""
        self._quiet.warning("the disk is slow: no trajectories are taken in", "journal=full")
        with self._written:
            self._written.wait(_TICK_MS / 1000)
        return False

    def _on_durable(self) -> None:
        with self._written:
            self._written.notify_all()
            if self._outbox:
                self._door.wake()

    def _receive_some(self) -> bool:
        """Handle what is there, but only so much before others get their turn.

        Returns:
            Whether there was anything.
        """
        for number in range(_MESSAGES_AT_ONCE):
            parcel = self._door.receive()
            if parcel is None:
                return number > 0
            if _name(parcel.identity).partition("#")[0] == parcel.member:
                self._read(parcel)
                continue
            self._quiet.warning(
                "ignored who speaks under a name that is not its own", "from=%s as=%r",
                parcel.member, parcel.identity[:40],
            )  # fmt: skip
        return True

    def _read(self, parcel: Parcel) -> None:
        identity, frames = parcel.identity, parcel.frames
        try:
            record = decode(frames)
        except ProtocolError as error:
            self._refuse(identity, frames, str(error))
            return
        try:
            with self._changed:
                self._handle(identity, record, frames)
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

    def _handle(self, identity: bytes, record: Record, frames: Sequence[memoryview]) -> None:
        now, name = time.monotonic(), _name(identity)
        if isinstance(record, Hello):
            self._send(identity, greet(self._coordinator, identity, record, now))
        elif not self._coordinator.heard(name, now):
            self._quiet.warning("message without hello", "from=%r", identity[:40])
            self._send(identity, HelloWanted())
        elif isinstance(record, Trajectory):
            self._trajectory(identity, record, frames, now)
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
        self, identity: bytes, trajectory: Trajectory, frames: Sequence[memoryview], now: float
    ) -> None:
        fresh = self._coordinator.receive(
            _name(identity),
            trajectory,
            learner_version=self._learner_version,
            now=now,
            num_bytes=sum(frame.nbytes for frame in frames),
            frames=frames,
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
        self._outbox.put(Letter(self._journal.appended, identity, encode(record)))

    def _send_what_is_safe(self) -> None:
        for letter in self._outbox.ready(self._journal.durable):
            try:
                self._door.send(letter.identity, letter.frames)
            except UndeliverableError as error:
                self._quiet.warning("message not sent", "to=%r %s", letter.identity[:40], error)


def _name(identity: bytes) -> str:
    """A session's identity as the coordinator knows it; of no session if it is not UTF-8."""
    return identity.decode("utf-8", "replace")
