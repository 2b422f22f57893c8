"""Which task comes next, and the groups that are open: bookkeeping without I/O, clock or thread."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import InputError
from common.wire.records import Task, Trajectory
from learner.advantages import has_signal
from learner.coordination.leases import lease_id_of

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Failed tries of one group member before the group goes on without it."""


class Order(Protocol):
    """Which training task comes next; ``TaskOrder`` of one file, ``MixedOrder`` of several."""

    @property
    def cursors(self) -> dict[str, int]:
        """Tasks given out so far by source; all that a checkpoint needs."""
        ...

    def go_to(self, cursors: Mapping[str, int]) -> None:
        """Go on where ``cursors`` were taken.

        Raises:
            InputError: they are of other sources.
        """
        ...

    def next(self) -> Task:
        """The next task; never ends."""
        ...

    def by_id(self, task_id: str) -> Task:
        """The task of that id; KeyError when the task files no longer have it."""
        ...


class TaskOrder:
    """The order of training tasks: every epoch is a fresh permutation drawn from the seed.

    The order is a pure function of (seed, epoch), so a cursor is all that a checkpoint needs.
    """

    def __init__(self, tasks: Sequence[Task], *, seed: int | str, cursor: int = 0) -> None:
        """Start at ``cursor`` tasks into the order.

        Raises:
            ValueError: there are no tasks.
        """
        if not tasks:
            raise ValueError("at least one training task is needed, got none")
        self._tasks = tasks
        self._by_id = {task.task_id: task for task in tasks}
        self._seed = seed
        self._epoch = -1
        self._permutation: list[int] = []
        self.cursor = cursor

    @property
    def cursors(self) -> dict[str, int]:
        """The cursor, under no name."""
        return {"": self.cursor}

    def go_to(self, cursors: Mapping[str, int]) -> None:
        """Go on at a cursor.

        Raises:
            InputError: it is one of several sources.
        """
        check_sources(cursors, self.cursors)
        self.cursor = cursors[""]

    def next(self) -> Task:
        """The next task; never ends."""
        epoch, place = divmod(self.cursor, len(self._tasks))
        if epoch != self._epoch:
            self._permutation = list(range(len(self._tasks)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._permutation)
            self._epoch = epoch
        self.cursor += 1
        return self._tasks[self._permutation[place]]

    def by_id(self, task_id: str) -> Task:
        """The task of that id; KeyError when the task file no longer has it."""
        return self._by_id[task_id]


def check_sources(saved: Mapping[str, int], here: Mapping[str, int]) -> None:
    """Refuse cursors of other sources than there are here.

    Raises:
        InputError: the names differ.
    """
    if saved.keys() != here.keys():
        then, now = (", ".join(filter(None, names)) or "tasks.train" for names in (saved, here))
        raise InputError(
            f"the checkpoint was made with tasks of {then}, and there are those of {now} now; "
            "resume with the sources that the run was started with"
        )


def group_id_of(number: int) -> str:
    """The id of a group."""
    return f"g{number:06d}"


@dataclass(frozen=True, slots=True)
class Out:
    """A member that is out: its sample index, and the identity of the session that holds it."""

    sample_index: int
    session: str


@dataclass(slots=True)
class Group:
    """Trajectories of one task: some finished, some leased to actors, some still to hand out."""

    group_id: str
    number: int
    task: Task
    size: int
    waiting: list[int] = field(default_factory=list)
    """Sample indices to hand out (again)."""
    leased: dict[str, Out] = field(default_factory=dict)
    """By lease id."""
    finished: list[Trajectory] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    """Leases given out so far, by sample index: part of a lease's id, so never counted back."""
    failures: dict[int, int] = field(default_factory=dict)
    """Failed tries, by sample index."""
    num_bytes: int = 0
    """Wire size of ``finished``."""
    first_at: float | None = None
    """When its first member came back, on the clock of whoever settles."""
    _oldest: tuple[int, int | None] = (0, None)
    """The lowest weight version of so many of ``finished``."""

    @classmethod
    def fresh(cls, number: int, task: Task, size: int) -> "Group":
        """A group of which nothing has been handed out."""
        return cls(group_id_of(number), number, task, size, waiting=list(range(size)))

    @property
    def pending(self) -> int:
        """Members that may still bring a trajectory."""
        return len(self.waiting) + len(self.leased)

    @property
    def complete(self) -> bool:
        """Nothing more will come."""
        return self.pending == 0

    @property
    def oldest_version(self) -> int | None:
        """The lowest weight version that sampled anything in it; None without actions."""
        known, oldest = self._oldest
        if known < len(self.finished):
            versions = [t.oldest_version for t in self.finished[known:]]
            oldest = min((v for v in (oldest, *versions) if v is not None), default=None)
            self._oldest = len(self.finished), oldest
        return oldest

    def next_lease(self) -> tuple[str, int]:
        """Lease id and sample index of the member that waits first."""
        sample_index = self.waiting[0]
        attempt = self.attempts.get(sample_index, 0) + 1
        return lease_id_of(self.group_id, sample_index, attempt), sample_index

    def lease(self, session: str) -> None:
        """Hand the member of ``next_lease`` to a session."""
        lease_id, sample_index = self.next_lease()
        self.waiting.pop(0)
        self.attempts[sample_index] = self.attempts.get(sample_index, 0) + 1
        self.leased[lease_id] = Out(sample_index, session)

    def settle(self, lease_id: str, trajectory: Trajectory, num_bytes: int, now: float) -> None:
        """A leased member came back with a usable trajectory at time ``now``."""
        del self.leased[lease_id]
        self.first_at = now if self.first_at is None else self.first_at
        self.num_bytes += num_bytes
        self.finished.append(trajectory)

    def give_back(self, lease_id: str, *, failed: bool) -> None:
        """A lease ended without a trajectory: the member is tried again, up to a limit.

        ``failed``: it counts against the member. What was only too old, or whose actor or learner
        died, does not.
        """
        sample_index = self.leased.pop(lease_id).sample_index
        self.failures[sample_index] = self.failures.get(sample_index, 0) + failed
        if self.failures[sample_index] < MAX_ATTEMPTS:
            self.waiting.append(sample_index)

    def in_order(self) -> list[Trajectory]:
        """What came, by sample index."""
        return sorted(self.finished, key=lambda trajectory: trajectory.sample_index)

    def is_overdue(self, now: float, timeout_s: float) -> bool:
        """Whether enough members have waited long enough to go on without the others.

        At least two and half of the members, ``timeout_s`` after the first came back.
        """
        enough = len(self.finished) >= max(2, -(-self.size // 2))
        return enough and self.first_at is not None and now - self.first_at >= timeout_s

    def abandon(self) -> None:
        """Go on without the members that are missing."""
        self.leased.clear()
        self.waiting.clear()


class SignalFilter:
    """Leaves groups out in which no member has an advantage (dynamic sampling).

    Source: DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2. Where nothing but such groups
    comes, the filter gives way after ``patience`` of them, so that a batch is never waited for
    without end.
    """

    def __init__(self, *, discount: float, patience: int) -> None:
        """Compare discounted returns; give way after ``patience`` groups in a row."""
        self._discount, self._patience = discount, patience
        self._in_row = 0

    def admits(self, group: Group) -> bool:
        """Whether the group goes into a batch."""
        if has_signal([t.step_rewards for t in group.finished], discount=self._discount):
            self._in_row = 0
            return True
        self._in_row += 1
        if self._in_row == self._patience + 1:
            log.warning(
                "no signal in %d groups in a row: training on them as they are; the tasks may be "
                "too easy or too hard for the policy", self._patience,
            )  # fmt: skip
        return self._in_row > self._patience
