"""The coordinator on the network: one thread, one ROUTER socket, one lock around the pure state.

consumes   hellos, heartbeats and trajectories of the actors
produces   task leases, acks, complete batches for the training loop
waits for  a message, a wake-up by the training loop or the journal, the next look at the clock
unblocked by  actors; ``take_batch`` is unblocked by the trajectory that completes a batch

What is said to whom is ``Correspondence``'s business. While the journal is played, the coordinator
belongs to whoever plays it: this thread lets nobody near it, and hands nothing out. Only members of
the run get beyond the handshake, and each speaks under its own name alone.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Self

from common.errors import LZeroError
from common.join_file import JOIN_FILE
from common.telemetry.quiet_log import QuietLog
from common.waits.catalogue import WaitKind
from common.waits.records import Node
from common.waits.register import waiting
from common.wire.records import Task, Trajectory
from common.wire.session import Drain
from common.wire.sockets import Door, PeerLimits, UndeliverableError
from learner.coordination.changes import Change, to_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.correspondence import AddTotals, Correspondence
from learner.coordination.counters import Counters
from learner.coordination.heldout_round import HeldoutRound
from learner.coordination.ledger import save_ledger
from learner.coordination.membership import Membership
from learner.coordination.newcomers import Newcomers
from learner.coordination.observed import Observed, observed
from learner.coordination.replay import Replay
from learner.coordination.store import Store
from learner.journal.interface import Journal, NoJournal

log = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 64
"""Handled before the training loop gets its turn at the lock."""

ACTOR_LIMITS = PeerLimits(message_bytes=64 << 20, queued_in=1000, queued_out=16_384)
"""Of one actor; most of a trajectory is the text of all its steps."""

_TICK_MS = 500
TELL_ALONE_S = 20.0
"""Seconds without an actor after which a person is told."""


class Intake:
    """Runs a coordinator behind a door; a context manager."""

    def __init__(
        self,
        coordinator: Coordinator,
        store: Store,
        door: Door,
        *,
        version: int = 0,
        journal: Journal | None = None,
        replay: Replay | None = None,
        membership: Membership | None = None,
        newcomers: Newcomers | None = None,
        tell: Callable[[str], None] = log.warning,
        add_totals: AddTotals = lambda name, totals: None,
    ) -> None:
        """Serve at ``door``, which is closed at the end; the learner is at weight ``version``.

        ``tell`` gets what a person must know at once. What happens goes into ``journal``, from
        ``go_live`` on where there is a ``replay``: until then whoever plays that has the
        coordinator for himself. ``add_totals`` gets what each actor did that leaves.
        """
        self._coordinator = coordinator
        self._membership = membership or Membership(())
        self._journal: Journal = journal or NoJournal()
        self._replay = replay
        self.blocked_s = 0.0
        """Seconds in which the training loop has waited for the journal."""
        self._store = store
        self._door = door
        self._quiet = QuietLog(log)
        self._error: BaseException | None = None
        self._stopping = False
        self._seen = coordinator.progress
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._written = threading.Condition(lock)
        """Notified by the journal alone: a commit is no news for who waits for a batch."""
        self._post = Correspondence(
            coordinator, store, self._journal, self._changed, learner_version=version,
            membership=membership, newcomers=newcomers, add_totals=add_totals,
        )  # fmt: skip
        self._tell = tell
        self._alone_since: float | None = None
        self._is_alone_told = False
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        if self._replay is None:
            self._begin()
        self._journal.on_durable = self._on_durable
        self._membership.on_change = self._door.wake
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and close every socket."""
        with self._changed:
            self._stopping = True
            self._door.wake()
        self._membership.on_change = lambda: None
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
            LZeroError: none came in time, counted from when some actor was there; says what it was
                waiting for.
        """
        with self._changed:
            self._post.learner_version = learner_version
            with waiting(WaitKind.BATCH, str(learner_version + 1)):
                batch = self._next_batch(learner_version, timeout_s, give_up)
            if batch is not None:
                self._door.wake()
                with waiting(WaitKind.JOURNAL, detail="the batch"):
                    self._wait_for_journal(timeout_s)
            return batch

    def _next_batch(
        self, learner_version: int, timeout_s: float, give_up: Callable[[], bool]
    ) -> list[Trajectory] | None:
        deadline = time.monotonic() + timeout_s
        while True:
            self._check()
            deadline = self._later_if_alone(deadline, timeout_s)
            if give_up():
                return None
            now = time.monotonic()
            batch = self._coordinator.take_batch(learner_version=learner_version, now=now)
            if batch is not None:
                return batch
            self._wait(deadline, f"a batch for step {learner_version + 1}", timeout_s)

    def go_live(self) -> bool:
        """The journal has been played and its weights published: tasks are handed out now.

        Returns:
            Whether an evaluation was under way; it is not gone on with.
        """
        with self._changed:
            if self._replay is not None:
                self._replay = None
                self._begin()
                self._door.wake()
            return self._coordinator.evaluations.is_under_way

    def _begin(self) -> None:
        now = time.monotonic()
        self._coordinator.groups.note = self._note
        self._coordinator.begin(now)
        self._post.begin(now)

    def _note(self, change: Change) -> None:
        self._journal.append(to_record(change))

    def acknowledge(self, version: int) -> None:
        """Every policy server in rotation now samples with this version, or a later one."""
        with self._changed:
            self._coordinator.version = version
            self._door.wake()

    def begin_evaluation(
        self, tasks: Sequence[Task], *, temperature: float, version: int, pinned: bool
    ) -> None:
        """Run these tasks once the servers sample with ``version``; see ``HeldoutRound``."""
        with self._changed:
            self._coordinator.evaluations.begin(
                tasks, temperature=temperature, version=version, pinned=pinned
            )
            self._door.wake()

    def take_evaluation(self) -> HeldoutRound | None:
        """The evaluation begun last, once, if all of it is in."""
        with self._changed:
            return self._coordinator.evaluations.take()

    def finish_evaluation(
        self, *, timeout_s: float, give_up: Callable[[], bool] = lambda: False
    ) -> HeldoutRound | None:
        """The evaluation begun last, when all of it is in; see ``take_batch``."""
        deadline = time.monotonic() + timeout_s
        with self._changed, waiting(WaitKind.EVALUATION):
            while True:
                self._check()
                deadline = self._later_if_alone(deadline, timeout_s)
                if give_up():
                    return None
                finished = self._coordinator.evaluations.take()
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

    def depth(self) -> float:
        """How far ahead of the learner sampling may run now, in batches."""
        with self._changed:
            return self._coordinator.depth.batches

    def credit_share(self) -> float:
        """Part of the episodes that actors could have in flight which may be, now; 0 to 1."""
        with self._changed:
            return self._coordinator.credit_share

    def observe(self, wanted: Sequence[Node] = ()) -> Observed:
        """How everything is, and what is known of what ``wanted`` waits for.

        While the journal is played, whoever plays it may change something meanwhile: then this
        raises whatever comes of that, and may be tried again.
        """
        with self._changed:
            return observed(self._coordinator, self._post, self._journal, wanted)

    def drain(self, reason: str, *, timeout_s: float, finish_s: float = 0.0) -> None:
        """Tell every actor that no more tasks will come, and wait until all are gone.

        While the journal is played nothing can be finished: who waits for a welcome is told to go.

        Args:
            reason: for their logs.
            timeout_s: longest wait.
            finish_s: what they may finish in this time they deliver; the rest they hand back.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            finish_s = 0.0 if self._replay is not None else finish_s
            self._post.draining = Drain(reason=reason, finish_s=finish_s)
            self._door.wake()
            names = _named(self._post.sessions.values())
            with waiting(WaitKind.FAREWELL, detail=names):
                self._until_all_left(deadline)
            if left := sorted(self._post.sessions.values()):
                log.warning("actors did not leave actors=%s", ",".join(left))

    def _until_all_left(self, deadline: float) -> None:
        while self._post.sessions and time.monotonic() < deadline:
            self._changed.wait(0.2)

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
                f"{self._membership.describe()}"
            )
        (on or self._changed).wait(min(remaining, 1.0))

    def _later_if_alone(self, deadline: float, timeout_s: float) -> float:
        """The end of a wait for actors: as long as there is none, it is put off, and said."""
        now = time.monotonic()
        if self._post.sessions:
            self._alone_since = None
            if self._is_alone_told:
                self._is_alone_told = False
                self._tell(f"the run goes on with {_named(self._post.sessions.values())}")
            return deadline
        self._alone_since = now if self._alone_since is None else self._alone_since
        if not self._is_alone_told and now - self._alone_since >= TELL_ALONE_S:
            self._is_alone_told = True
            self._tell(
                f"the run waits for actors: for {TELL_ALONE_S:.0f} s there has been none; bring "
                f"one in with: lzero join RUN/{JOIN_FILE} --role actor"
            )
        return now + timeout_s

    def _wait_for_journal(self, timeout_s: float) -> None:
        """Nothing is trained on that a crash could forget."""
        deadline = time.monotonic() + timeout_s
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
                has_come = self._wait_for_room() if self._journal.is_full else self._receive_some()
                with self._changed:
                    self._post.tick(time.monotonic())
                    if has_come and self._is_news():
                        self._changed.notify_all()
                    self._send_what_is_safe()
        except BaseException as error:
            log.exception("intake failed")
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._door.close()

    def _is_news(self) -> bool:
        """Whether anything changed that the training loop waits for: most messages do not."""
        before, self._seen = self._seen, self._coordinator.progress
        return before != self._seen

    def _wait_for_room(self) -> bool:
        """The disk is behind: actors keep what they have until it is not. There is no news."""
        self._quiet.warning("the disk is slow: no trajectories are taken in", "journal=full")
        with self._written:
            self._written.wait(_TICK_MS / 1000)
        return False

    def _on_durable(self) -> None:
        with self._written:
            self._written.notify_all()
            if self._post.outbox:
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
            self._post.read(parcel)
        return True

    def _send_what_is_safe(self) -> None:
        for letter in self._post.letters():
            try:
                self._door.send(letter.identity, letter.frames)
            except UndeliverableError as error:
                self._quiet.warning("message not sent", "to=%r %s", letter.identity[:40], error)


def _named(actors: Collection[str]) -> str:
    names = sorted(set(actors))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{len(names)} {'actor' if len(names) == 1 else 'actors'}: {', '.join(names[:8])}{more}"
