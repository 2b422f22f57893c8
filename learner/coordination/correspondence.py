"""What actors say to the coordinator, and what they are told; no thread and no socket of its own.

Every trajectory is acknowledged once its fate is decided and on the disk, also a duplicate; an
actor repeats what was not. Until the journal has been played, who says hello waits for the welcome
and is kept in patience: heartbeats are answered, trajectories have to come again. No message is an
error of ours: what cannot be read is answered, counted and forgotten. What is said by others than
actors is ``Registrar``'s business.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from common.errors import ProtocolError
from common.telemetry.process_totals import ActorTotals
from common.telemetry.quiet_log import QuietLog
from common.wire.codec import Record, claim_of, decode, encode
from common.wire.joining import Join
from common.wire.parcels import Parcel
from common.wire.records import Trajectory
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
from learner.coordination.coordinator import Coordinator
from learner.coordination.membership import Membership
from learner.coordination.newcomers import Newcomers
from learner.coordination.outbox import Letter, Outbox
from learner.coordination.reception import greet, refusal_of
from learner.coordination.registrar import Registrar
from learner.coordination.store import Store
from learner.journal.interface import Journal

log = logging.getLogger(__name__)

_MAX_REASON_CHARACTERS = 500
"""Of what is said and logged of a message that cannot be used; it may quote all of it."""

AddTotals = Callable[[str, ActorTotals], None]

_SAME_VERSION = "run the same version of l-zero on both sides"


class Correspondence:
    """Messages of sessions in, letters to sessions out; ``lock`` guards all that it touches."""

    def __init__(
        self,
        coordinator: Coordinator,
        store: Store,
        journal: Journal,
        lock: threading.Condition,
        *,
        learner_version: int,
        membership: Membership | None = None,
        newcomers: Newcomers | None = None,
        add_totals: AddTotals = lambda name, totals: None,
    ) -> None:
        """Nobody is welcomed before ``begin``; the learner is at weight ``learner_version``.

        Sessions are told the rotation of ``membership``, and get no tasks while nobody may be
        asked. Without ``newcomers`` nobody joins. ``add_totals`` gets what a process did that
        leaves, by the name of the actor; OSError and ValueError are logged.
        """
        self._add_totals = add_totals
        self._membership = membership
        self._registrar = (
            Registrar(newcomers, coordinator, membership, self._say) if newcomers else None
        )
        self._news_of_load = 0
        self.learner_version = learner_version
        self.draining: Drain | None = None
        """What every session is told instead of tasks."""
        self.outbox = Outbox()
        self._coordinator = coordinator
        self._store = store
        self._journal = journal
        self._lock = lock
        self._quiet = QuietLog(log)
        self._has_begun = False
        self._waiting: dict[str, Hello] = {}
        """Who said hello before ``begin``."""
        self._drained: set[str] = set()

    def begin(self, now: float) -> None:
        """Sessions are welcomed and tasks handed out from now on."""
        self._has_begun = True
        for hello in self._waiting.values():
            self._say(hello.identity.encode(), greet(self._coordinator, hello, now))
        self._waiting.clear()

    @property
    def is_asked(self) -> bool:
        """Whether some policy server may be asked."""
        return self._membership is None or bool(self._membership.rotation.asked)

    @property
    def sessions(self) -> dict[str, str]:
        """The actor's name of every session that was or will be welcomed, by identity."""
        waiting = {identity: hello.actor_id for identity, hello in self._waiting.items()}
        return waiting | self._coordinator.sessions

    def tick(self, now: float) -> None:
        """Act on the clock, and tell sessions what they are to do next."""
        is_somebody_asked = self._has_begun and self._tell_rotation()
        if self._has_begun:
            self._coordinator.tick(now)
            self._hear_loads()
        if self.draining is not None:
            for name in self.sessions.keys() - self._drained:
                self._say(name.encode(), self.draining)
                self._drained.add(name)
            if self._registrar is not None:
                self._registrar.close(self.draining)
            return
        if self._registrar is not None:
            self._registrar.send_away()
        if is_somebody_asked:
            self._hand_out(now)

    def letters(self) -> Iterator[Letter]:
        """What may leave by now, in order."""
        return self.outbox.ready(self._journal.durable)

    # ---- what comes --------------------------------------------------------------------------

    def read(self, parcel: Parcel) -> None:
        """Take in a message, whatever it is; takes the lock."""
        identity, frames = parcel.identity, parcel.frames
        if _name(identity).partition("#")[0] != parcel.member:
            self._quiet.warning(
                "ignored who speaks under a name that is not its own", "from=%s as=%r",
                parcel.member, identity[:40],
            )  # fmt: skip
            return
        try:
            record = decode(frames)
        except ProtocolError as error:
            with self._lock:
                self._refuse(identity, frames, str(error))
            return
        with self._lock:
            try:
                if self._registrar is not None and self._registrar.hears(parcel.member):
                    self._registrar.read(identity, parcel.member, record, self.draining)
                else:
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
        if kind in (Hello.__name__, Join.__name__):
            self._say(identity, Refused(reason=f"{reason}; {_SAME_VERSION}"))
        elif name not in self.sessions:
            self._say(identity, HelloWanted())
        else:
            self._say(identity, Rejected(reason=reason))
            if self._coordinator.withdraw(name, lease_id, "malformed", reason):
                self._say(identity, Ack(trajectory_id=lease_id))

    def _handle(self, identity: bytes, record: Record, frames: Sequence[memoryview]) -> None:
        now, name = time.monotonic(), _name(identity)
        if isinstance(record, Hello):
            self._greet(identity, record, now)
        elif isinstance(record, Leave):
            self._part(name, record)
        elif name in self._waiting:
            self._keep_in_patience(name, record)
        elif not self._coordinator.heard(name, now):
            self._quiet.warning("message without hello", "from=%r", identity[:40])
            self._say(identity, HelloWanted())
        elif isinstance(record, Trajectory):
            self._trajectory(identity, record, frames, now)
        elif isinstance(record, Heartbeat):
            sent = self._coordinator.heartbeat(name, record)
            self._say(identity, HeartbeatAck(sent=sent))
            self._drained.discard(name)  # who has heard of the drain beats no more

    def _greet(self, identity: bytes, hello: Hello, now: float) -> None:
        if refusal := refusal_of(identity, hello):
            log.warning("actor refused reason=%s", refusal)
            self._say(identity, Refused(reason=refusal))
        elif self._has_begun:
            if self._registrar is not None:
                self._registrar.greeted(hello.identity)
            self._say(identity, greet(self._coordinator, hello, now))
        else:
            self._waiting[hello.identity] = hello

    def _keep_in_patience(self, name: str, record: Record) -> None:
        """Who waits for a welcome hears that we live; what it has to deliver it keeps."""
        if isinstance(record, Heartbeat):
            self._say(name.encode(), HeartbeatAck(sent=0))
            self._drained.discard(name)

    def _part(self, name: str, leave: Leave) -> None:
        """A session ends; what its process did counts, also if nobody knew it any more."""
        self._waiting.pop(name, None)
        lost = self._coordinator.leave(name, "actor_left")
        actor = name.partition("#")[0]
        log.info("actor left actor=%s reason=%s leases=%d", actor, leave.reason[:200], lost)
        if leave.totals is None:
            return
        try:
            self._add_totals(actor, leave.totals)
        except (OSError, ValueError) as error:
            self._quiet.warning("totals not kept", "actor=%s reason=%s", actor, error)

    def _trajectory(
        self, identity: bytes, trajectory: Trajectory, frames: Sequence[memoryview], now: float
    ) -> None:
        fresh = self._coordinator.receive(
            _name(identity),
            trajectory,
            learner_version=self.learner_version,
            now=now,
            num_bytes=sum(frame.nbytes for frame in frames),
            frames=frames,
        )
        self._say(identity, Ack(trajectory_id=trajectory.trajectory_id))
        if fresh:
            self._keep(trajectory, frames)

    def _keep(self, trajectory: Trajectory, frames: Sequence[memoryview]) -> None:
        """Into the store, which people read; training does not depend on it."""
        try:
            self._store.append(trajectory, frames)
        except (OSError, ValueError) as error:
            self._quiet.warning("trajectory not stored", "reason=%s", error)

    # ---- what goes ---------------------------------------------------------------------------

    def _tell_rotation(self) -> bool:
        """Say who may be asked to all to whom it is news; whether there is anybody."""
        if self._membership is None:
            return True
        rotation = self._membership.rotation
        for name in self._coordinator.tell(rotation.number):
            self._say(name.encode(), rotation)
        return bool(rotation.asked)

    def _hear_loads(self) -> None:
        """Pass on what servers have to do, where that is news."""
        if self._membership is not None:
            self._news_of_load, servers = self._membership.loads_since(self._news_of_load)
            if servers is not None:
                self._coordinator.hear_loads(servers)

    def _hand_out(self, now: float) -> None:
        for name, lease in self._coordinator.hand_out(now=now):
            try:
                self._say(name.encode(), lease)
            except Exception as error:  # a task that no wire carries is that task's failure
                self._quiet.exception("lease not sent", "lease=%s", lease.lease_id)
                text = f"task '{lease.task.task_id}' cannot be sent: {error}"
                self._coordinator.withdraw(name, lease.lease_id, "unsendable", text)

    def _say(self, identity: bytes, record: Record) -> None:
        self.outbox.put(Letter(self._journal.appended, identity, encode(record)))


def _name(identity: bytes) -> str:
    """A session's identity as the coordinator knows it; of no session if it is not UTF-8."""
    return identity.decode("utf-8", "replace")
