"""The book of leases: who holds which task, until when.

Pure: no clock, no sockets. The invariant kept here: a lease is granted once, belongs to one
session until it ends, and ends exactly once, through ``end``. Whatever decides its fate
(a trajectory, silence, a deadline, a heartbeat that does not name it) goes through that call, and
whoever comes second gets None.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import inf

from common.wire.records import Purpose, Task, TaskLease

DELIVERY_S = 30.0
"""Time that a session has beyond a lease's own time to deliver what became of it, seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A task that is out.

    Attributes:
        lease_id: a function of group, member and attempt.
        session: identity of the session that holds it.
        group_id: of its group; empty for a held-out task.
        sample_index: place in the group.
        serial: place among the leases of its session, from 1; 0 of one that is older than the
            coordinator, and so must have reached its session.
        deadline: when it is taken back, seconds on the clock of whoever grants.
    """

    lease_id: str
    session: str
    group_id: str
    sample_index: int
    purpose: Purpose
    task: Task
    serial: int
    deadline: float

    def offer(self, *, temperature: float, timeout_s: float) -> TaskLease:
        """What its session is sent, with the temperature to sample at and the time it has."""
        return TaskLease(
            lease_id=self.lease_id,
            group_id=self.group_id or "evaluation",
            sample_index=self.sample_index,
            purpose=self.purpose,
            temperature=temperature,
            task=self.task,
            serial=self.serial,
            timeout_s=timeout_s,
        )


def lease_id_of(group_id: str, sample_index: int, attempt: int) -> str:
    """The id of the ``attempt``-th try (from 1) of a member of a group."""
    return f"{group_id}-{sample_index}-{attempt}"


class LeaseBook:
    """All leases that have been granted and have not ended."""

    def __init__(self) -> None:
        """An empty book."""
        self.ended = 0
        """Leases that have ended."""
        self._leases: dict[str, Lease] = {}
        self._by_session: dict[str, set[str]] = {}
        self._first_deadline = inf
        """No lease has an earlier one."""
        self.on_count: Callable[[str], None] = lambda session: None
        """Told of the session that holds more or fewer leases now."""

    def __len__(self) -> int:
        """Leases that are out."""
        return len(self._leases)

    def __contains__(self, lease_id: object) -> bool:
        """Whether the lease of that id is out."""
        return lease_id in self._leases

    def grant(self, lease: Lease) -> None:
        """Enter a lease.

        Raises:
            ValueError: a lease of that id is out.
        """
        if lease.lease_id in self._leases:
            raise ValueError(f"lease '{lease.lease_id}' is out already")
        self._leases[lease.lease_id] = lease
        self._by_session.setdefault(lease.session, set()).add(lease.lease_id)
        self._first_deadline = min(self._first_deadline, lease.deadline)
        self.on_count(lease.session)

    def held(self, lease_id: str, *, by: str) -> Lease | None:
        """The lease of that id if this session holds it, else None."""
        lease = self._leases.get(lease_id)
        return lease if lease is not None and lease.session == by else None

    def end(self, lease_id: str) -> Lease | None:
        """Take a lease out of the book; None where it has ended before."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self.ended += 1
            own = self._by_session[lease.session]
            own.discard(lease_id)
            if not own:
                del self._by_session[lease.session]
            self.on_count(lease.session)
        return lease

    def __getitem__(self, lease_id: str) -> Lease:
        """The lease of that id; KeyError where it is not out."""
        return self._leases[lease_id]

    def held_out(self) -> tuple[Lease, ...]:
        """The leases of held-out tasks, in the order in which they were granted."""
        return tuple(lease for lease in self._leases.values() if not lease.group_id)

    def of(self, session: str) -> tuple[str, ...]:
        """Ids of what a session holds, in order."""
        return tuple(sorted(self._by_session.get(session, ())))

    def count(self, session: str) -> int:
        """How many leases a session holds."""
        return len(self._by_session.get(session, ()))

    def overdue(self, now: float) -> tuple[Lease, ...]:
        """The leases whose deadline has passed, by id."""
        if now < self._first_deadline:
            return ()
        self._first_deadline = min((one.deadline for one in self._leases.values()), default=inf)
        over = (lease for lease in self._leases.values() if lease.deadline <= now)
        return tuple(sorted(over, key=lambda lease: lease.lease_id))

    def extend(self, session: str, deadline: float) -> None:
        """Give a session until then for all that it holds."""
        self._first_deadline = min(self._first_deadline, deadline)
        for lease_id in self.of(session):
            self._leases[lease_id] = replace(self._leases[lease_id], deadline=deadline)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Identities of all that hold leases, in order."""
        return tuple(sorted(self._by_session))

    def unnamed(self, session: str, *, seen: int, named: Collection[str]) -> tuple[str, ...]:
        """Ids of what a session must have received, yet does not name.

        Messages of one connection arrive in order: a session that has seen serial ``seen`` will
        never receive what was sent before and did not reach it.
        """
        named = set(named)
        return tuple(
            lease_id
            for lease_id in self.of(session)
            if self._leases[lease_id].serial <= seen and lease_id not in named
        )
