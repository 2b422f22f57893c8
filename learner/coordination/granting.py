"""Who gets which lease next, and what keeps those who have room from more.

Pure. Four bounds, whichever is the least: what a session can hold, what policy servers bear
(``credit``), how far ahead of the learner sampling may run (``depth``) and how much is buffered.
"""

from functools import partial

from common.wire.records import Purpose, Task, TaskLease
from learner.coordination.admission import Admission
from learner.coordination.buffer import GroupBuffer
from learner.coordination.credit import Credit
from learner.coordination.depth import Depth
from learner.coordination.evaluations import Evaluations
from learner.coordination.heldout_round import HeldoutRound
from learner.coordination.leases import DELIVERY_S, Lease, LeaseBook
from learner.coordination.sessions import Sessions


class Granting:
    """Hands out training and held-out tasks; what it works on is the coordinator's."""

    def __init__(
        self,
        groups: GroupBuffer,
        evaluations: Evaluations,
        sessions: Sessions,
        leases: LeaseBook,
        admission: Admission,
        *,
        depth: Depth,
        credit: Credit,
        temperature: float,
        lease_timeout_s: float,
        silence_s: float,
    ) -> None:
        """The arguments are those of the coordinator."""
        self._groups = groups
        self._evaluations = evaluations
        self._sessions = sessions
        self._leases = leases
        self._admission = admission
        self._depth = depth
        self._credit = credit
        self._temperature = temperature
        self._lease_timeout_s = lease_timeout_s
        self._silence_s = silence_s

    def hand_out(self, version: int, now: float) -> list[tuple[str, TaskLease]]:
        """As many leases as there may be, each with the identity of its session.

        ``version`` is that which the policy servers sample with.
        """
        handed: list[tuple[str, TaskLease]] = []
        while (identity := self._least_busy(now)) and not self._credit.is_over(len(self._leases)):
            lease = self._next(identity, version, now)
            if lease is None:
                break
            handed.append((identity, lease))
        self._note_bounds(version, now, has_room=identity is not None)
        return handed

    def _least_busy(self, now: float) -> str | None:
        return self._sessions.least_busy(now=now, silence_s=self._silence_s)

    def _note_bounds(self, version: int, now: float, *, has_room: bool) -> None:
        """Tell each bound whether it alone keeps sessions that have room from more."""
        out = len(self._leases)
        is_over = has_room and self._credit.is_over(out)
        held_back = is_over and self._has_work(version)
        self._credit.handed_out(out, ended=self._leases.ended, held_back=held_back)
        is_deep = has_room and not is_over and not self._admission.is_full
        self._depth.hold_back(now, is_so=is_deep)

    def _has_work(self, version: int) -> bool:
        """Whether there is anything that could be handed out."""
        return (
            self._evaluations.waiting(version) is not None
            or self._groups.has_waiting
            or self._admission.may_open(version)
        )

    def _next(self, identity: str, version: int, now: float) -> TaskLease | None:
        waiting = self._evaluations.waiting(version)
        if waiting is not None and waiting.comes_first:
            return self._ask(identity, now, waiting)
        may_open = partial(self._admission.may_open, version)
        granted = self._groups.grant(identity, may_open=may_open)
        if granted is None:
            return None if waiting is None else self._ask(identity, now, waiting)
        if waiting is not None:
            waiting.pass_over()
        group, lease_id, sample_index = granted
        return self._grant(
            identity, now, lease_id, sample_index, group.task,
            group_id=group.group_id, temperature=self._temperature,
        )  # fmt: skip

    def _ask(self, identity: str, now: float, waiting: HeldoutRound) -> TaskLease:
        lease = waiting.lease()
        return self._grant(identity, now, *lease, group_id="", temperature=waiting.temperature)

    def _grant(
        self,
        identity: str,
        now: float,
        lease_id: str,
        sample_index: int,
        task: Task,
        *,
        group_id: str,
        temperature: float,
    ) -> TaskLease:
        """Enter a lease into the book; what its session is sent. Held-out tasks have no group."""
        session = self._sessions[identity]
        session.sent += 1
        lease = Lease(
            lease_id=lease_id,
            session=identity,
            group_id=group_id,
            sample_index=sample_index,
            purpose=Purpose.TRAIN if group_id else Purpose.EVALUATE,
            task=task,
            serial=session.sent,
            deadline=now + self._lease_timeout_s + DELIVERY_S,
        )
        self._leases.grant(lease)
        return lease.offer(temperature=temperature, timeout_s=self._lease_timeout_s)
