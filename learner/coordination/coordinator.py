"""The coordinator's state: leases out, trajectories in, batches of complete fresh groups.

Pure: no sockets, clock or threads; ``intake`` feeds it and acts on what it returns. What it keeps,
after any history of events (tests/unit/test_coordinator_properties.py plays random ones):

* *Delivery.* Every lease ends exactly once: trained, dropped with a counted reason, or handed out
  again. ``started = trained + sum(dropped) + held in groups + out``. Only the session that holds a
  lease settles it; what comes second, or from somebody else, changes nothing.
* *Admission.* The staleness bound holds at admission, on arrival and when a batch is taken.
* *Credit.* No session gets more than it asks for, and all together no more than policy servers bear
  (``credit``); what is out already stays out.
* *Sessions.* Hello is idempotent: said again, it changes nothing. A session that is silent, or
  leaves, or does not name a lease that must have reached it, loses it; silent for a third of that
  time it gets no more. When the coordinator begins again, what was out stays with the sessions that
  held it: each gets what its hello names, and what is not claimed in ``silence_s``, or whose actor
  comes with a new session and empty hands, is handed out again.
* *Tries.* Every hand-out raises a member's attempt number, which is part of the lease's id; only
  failures of its own episode count against its tries, and no end of an actor or of the learner.
* *Liveness.* Every lease has a deadline, so nothing is waited for without end.
"""

import logging
from collections.abc import Callable, Sequence

from common.waits.records import Node, Waiting
from common.wire.codec import Buffer
from common.wire.records import Outcome, TaskLease, Trajectory
from common.wire.session import Heartbeat, Hello
from learner.coordination.admission import Admission
from learner.coordination.buffer import GroupBuffer
from learner.coordination.changes import LOST_AT_RESTART
from learner.coordination.counters import Counters, FailureLog, reason_of_failure
from learner.coordination.credit import Credit
from learner.coordination.depth import Depth
from learner.coordination.evaluations import Evaluations
from learner.coordination.granting import Granting
from learner.coordination.groups import Order, SignalFilter
from learner.coordination.leases import DELIVERY_S, LeaseBook
from learner.coordination.outstanding import ActorSeen, Books, actors_seen, describe, outstanding
from learner.coordination.roster import LiveServer
from learner.coordination.sessions import Sessions
from learner.coordination.trajectory_checks import ModelLimits, fault_in

log = logging.getLogger(__name__)


class Coordinator:
    """Owns the sessions, the task leases, the groups and the held-out evaluations."""

    def __init__(
        self,
        order: Order,
        *,
        groups_per_batch: int,
        group_size: int,
        max_staleness: int,
        depth: Depth | None = None,
        temperature: float = 1.0,
        total_batches: int,
        max_buffered_bytes: int,
        signal_filter: SignalFilter | None = None,
        group_timeout_s: float = 0.0,
        lease_timeout_s: float = 3600.0,
        silence_s: float = 60.0,
        limits: ModelLimits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """An empty coordinator; times are seconds.

        Args:
            order: which task comes next.
            groups_per_batch: groups in a batch.
            group_size: trajectories of one task.
            max_staleness: versions that an action may lag behind the learner.
            depth: how far ahead of the learner sampling runs; None for as far as that.
            temperature: at which training episodes are sampled.
            total_batches: nothing is admitted beyond these.
            max_buffered_bytes: of trajectories kept, before no group is opened any more.
            signal_filter: leaves groups out.
            group_timeout_s: after which a group goes on without late members; 0 for never.
            lease_timeout_s: how long an actor may run a lease.
            silence_s: after which a session that says nothing has lost its leases.
            limits: of the model, checked in every trajectory.
            tell: gets what a person must know at once.
        """
        self.version = 0
        self.groups = GroupBuffer(
            order,
            groups_per_batch=groups_per_batch,
            group_size=group_size,
            max_staleness=max_staleness,
            signal_filter=signal_filter,
            group_timeout_s=group_timeout_s,
        )
        self.evaluations = Evaluations(self.groups)
        self._leases = LeaseBook()
        self._sessions = Sessions(self._leases.count)
        self._leases.on_count = self._sessions.offer
        self._failures = FailureLog(tell)
        self.depth = depth or Depth.greatest(groups_per_batch, max_staleness)
        self.credit = Credit(floor=group_size)
        self._admission = Admission(
            self.groups, self.depth,
            total_batches=total_batches, max_buffered_bytes=max_buffered_bytes,
        )  # fmt: skip
        self._granting = Granting(
            self.groups, self.evaluations, self._sessions, self._leases, self._admission,
            depth=self.depth, credit=self.credit, temperature=temperature,
            lease_timeout_s=lease_timeout_s, silence_s=silence_s,
        )  # fmt: skip
        self._lease_timeout_s = lease_timeout_s
        self._silence_s = silence_s
        self._limits = limits

    @property
    def counters(self) -> Counters:
        """What became of all training leases."""
        return self.groups.counters

    # ---- sessions ----------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """The state is complete, restored or empty: leases that are out wait to be claimed."""
        self.groups.restart(now)
        for lease in self.groups.out(deadline=now + self._silence_s):
            self._leases.grant(lease)

    def join(self, hello: Hello, *, now: float = 0.0) -> bool:
        """A session says hello; returns whether it is new. Said again, nothing changes."""
        is_new = self._sessions.join(hello, now)
        if is_new:
            self._adopt(hello, now)
        return is_new

    def _adopt(self, hello: Hello, now: float) -> None:
        """Leave to a session what it held before we began again and says that it still holds."""
        held = self._leases.of(hello.identity)
        self._lose([lease_id for lease_id in held if lease_id not in hello.leases], LOST_AT_RESTART)
        self._leases.extend(hello.identity, now + self._lease_timeout_s + DELIVERY_S)
        if held or hello.leases:
            adopted = len(self._leases.of(hello.identity))
            log.info("leases adopted actor=%s leases=%d", hello.actor_id, adopted)
            return
        for session in self.unclaimed:
            if session.partition("#")[0] == hello.actor_id:
                self._lose(self._leases.of(session), LOST_AT_RESTART)

    @property
    def unclaimed(self) -> tuple[str, ...]:
        """Identities of the sessions from before we began again that have not come back."""
        return tuple(session for session in self._leases.sessions if session not in self._sessions)

    def heard(self, identity: str, now: float) -> bool:
        """A session said something; returns whether it is known."""
        return self._sessions.heard(identity, now)

    def leave(self, identity: str, reason: str) -> int:
        """A session has ended: what it held is handed out again. Returns how many leases."""
        if self._sessions.pop(identity, None) is None:
            return 0
        return self._lose(self._leases.of(identity), reason)

    def heartbeat(self, identity: str, beat: Heartbeat) -> int:
        """Take back what a session must have received but does not name.

        Returns the serial of the last lease sent to it, for the answer.
        """
        session = self._sessions[identity]
        self._sessions.beat(identity, beat)
        seen = min(beat.seen, session.sent)
        lost = self._leases.unnamed(identity, seen=seen, named=beat.leases)
        if lost:
            log.warning("leases never arrived actor=%s leases=%s", session.actor_id, lost[:8])
        self._lose(lost, "never_arrived")
        return session.sent

    def tell(self, rotation: int) -> list[str]:
        """The sessions that have to be sent the rotation of that number; each once."""
        return self._sessions.tell(rotation)

    def retire(self, identity: str) -> None:
        """A session is to leave: it gets no more leases, and keeps those that it has."""
        self._sessions.retire(identity)

    def held_by(self, identity: str) -> tuple[str, ...]:
        """Ids of the leases that a session holds."""
        return self._leases.of(identity)

    @property
    def sessions(self) -> dict[str, str]:
        """The actor's name of every session, by identity."""
        return {identity: session.actor_id for identity, session in self._sessions.items()}

    def tick(self, now: float) -> None:
        """Act on the clock: silence, deadlines, overdue groups."""
        for identity, silent_s in self._sessions.silent(now, self._silence_s):
            actor_id = self._sessions[identity].actor_id
            lost = self.leave(identity, "actor_silent")
            log.warning(
                "actor silent actor=%s seconds=%.0f leases_returned=%d", actor_id, silent_s, lost
            )
        for lease in self._leases.overdue(now):
            if lease.session in self._sessions:
                log.warning("lease expired lease=%s", lease.lease_id)
                self._fail(lease.lease_id, "lease_expired")
            else:
                log.warning("lease not claimed lease=%s", lease.lease_id)
                self._lose([lease.lease_id], LOST_AT_RESTART)
        self.groups.close_overdue(now)

    # ---- leases ------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Trajectories that may still be started; can be negative."""
        return self._admission.capacity(self.version)

    def hand_out(self, *, now: float = 0.0) -> list[tuple[str, TaskLease]]:
        """As many leases as credit and admission allow, each with the identity of its session."""
        return self._granting.hand_out(self.version, now)

    def hear_loads(self, servers: Sequence[LiveServer]) -> None:
        """What all policy servers that answer have said last of what they have to do."""
        self.credit.hear(servers, asked=self._sessions.credit)

    @property
    def credit_share(self) -> float:
        """Part of what sessions could hold that may be out at once; 1 where nothing limits it."""
        asked = self._sessions.credit
        return self.credit.limit(asked) / asked if asked else 1.0

    def withdraw(self, identity: str, lease_id: str, reason: str, text: str) -> bool:
        """A lease cannot be used by the session that holds it; returns whether it held it."""
        if self._leases.held(lease_id, by=identity) is None:
            return False
        self._fail(lease_id, reason, text)
        return True

    # ---- trajectories ------------------------------------------------------------------------

    def receive(
        self,
        identity: str,
        trajectory: Trajectory,
        *,
        learner_version: int,
        num_bytes: int = 0,
        now: float = 0.0,
        frames: Sequence[Buffer] = (),
    ) -> bool:
        """Take in what a session made of a lease; returns whether anybody should keep it.

        Either way the sender gets its ack: the answer to its existence has been decided.
        ``frames`` are those in which it came, for the journal.
        """
        lease = self._leases.held(trajectory.trajectory_id, by=identity)
        if lease is None:
            self.counters.duplicates += 1
            return False
        fault = fault_in(
            trajectory,
            lease,
            actor_id=self._sessions[identity].actor_id,
            limits=self._limits,
            newest_version=max(learner_version + 1, self.version),
        )
        if fault is not None:
            self._fail(lease.lease_id, f"invalid:{fault.kind}", fault.text)
            return False
        if trajectory.outcome is Outcome.INFRASTRUCTURE:
            reason = reason_of_failure(trajectory.failure)
            self._fail(lease.lease_id, reason, trajectory.failure, trajectory)
            return True
        self._failures.succeeded()
        self._leases.end(lease.lease_id)
        if lease.group_id:
            self.groups.settle(
                lease.group_id, trajectory, learner_version=learner_version,
                num_bytes=num_bytes, now=now, frames=frames,
            )  # fmt: skip
        else:
            self.evaluations.settle(trajectory, frames)
        return True

    def _lose(self, lease_ids: Sequence[str], reason: str) -> int:
        """End leases whose session is gone, or never had them: no failure of their members."""
        for lease_id in lease_ids:
            self._end(lease_id, reason, counts=False)
        return len(lease_ids)

    def _fail(
        self, lease_id: str, reason: str, text: str = "", trajectory: Trajectory | None = None
    ) -> None:
        """End a lease whose episode failed; it counts against the tries of its member."""
        if text and lease_id in self._leases:
            self._failures.failed(reason, text)
        self._end(lease_id, reason, counts=True, trajectory=trajectory)

    def _end(
        self, lease_id: str, reason: str, *, counts: bool, trajectory: Trajectory | None = None
    ) -> None:
        """End a lease that brought nothing, or a trajectory of a failed episode."""
        lease = self._leases.end(lease_id)
        if lease is None:
            return
        if lease.group_id:
            self.groups.fail(lease.group_id, lease_id, reason, counts=counts, trajectory=trajectory)
        else:
            self.evaluations.give_back(lease_id, failed=counts)

    # ---- batches -----------------------------------------------------------------------------

    @property
    def progress(self) -> tuple[int, ...]:
        """Another one whenever something is there that a batch or an evaluation waits for."""
        rounds = self.evaluations
        return self.groups.closed, len(self._sessions), rounds.next_number, int(rounds.is_over)

    def take_batch(self, *, learner_version: int, now: float = 0.0) -> list[Trajectory] | None:
        """A batch of complete fresh groups, oldest first; None while there are too few."""
        batch = self.groups.take_batch(learner_version=learner_version)
        if batch is None:
            self.depth.wait(now)
        else:
            self.depth.took(now, spare=len(self.groups.ready))
        return batch

    def waiting_for(self) -> str:
        """What a full batch is waiting for, and what failed most, in words, for time-outs."""
        return describe(self._books(), dropped=self._failures.describe(self.counters.dropped))

    def outstanding(self, wanted: Node, now: float, *, is_asked: bool = True) -> list[Waiting]:
        """What ``wanted``, a batch or the held-out evaluation, waits for; the oldest of it.

        ``is_asked``: some policy server is in rotation.
        """
        return outstanding(self._books(is_asked), wanted, now)

    def actors(self, now: float) -> list[ActorSeen]:
        """The sessions, what each holds and said last, those of the most silent actors first."""
        return actors_seen(self._sessions, self._leases, now)

    def _books(self, is_asked: bool = True) -> Books:
        return Books(
            groups=self.groups,
            evaluations=self.evaluations,
            leases=self._leases,
            sessions=self._sessions,
            admission=self._admission,
            credit=self.credit,
            depth=self.depth,
            version=self.version,
            lease_timeout_s=self._lease_timeout_s,
            is_somebody_asked=is_asked,
        )
