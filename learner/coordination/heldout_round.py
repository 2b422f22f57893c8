"""Held-out tasks being run while training goes on."""

from collections import Counter, deque
from collections.abc import Sequence

from common.wire.records import Task, Trajectory
from learner.coordination.groups import MAX_ATTEMPTS
from learner.coordination.leases import lease_id_of

_EVERY = 4
"""Of so many leases in a row one at least is of a round that waits: so that it ends, also where
training would take all that there is."""


class HeldoutRound:
    """Every task ends with one trajectory, or is given up after ``MAX_ATTEMPTS`` failed tries."""

    def __init__(
        self,
        number: int,
        tasks: Sequence[Task],
        *,
        temperature: float,
        version: int = 0,
        pinned: bool = False,
    ) -> None:
        """The evaluation ``number`` of the run; nothing is handed out yet.

        ``version`` is the first that is asked. A ``pinned`` round comes before training tasks,
        because a publish waits for it; any other takes what they leave, and a part of the rest.
        """
        self.version = version
        self.temperature = temperature
        self.finished: list[Trajectory] = []
        self._pinned = pinned
        self._passed_over = 0
        self._group_id = f"e{number:06d}"
        self._tasks = tuple(tasks)
        self._waiting = deque(range(len(tasks)))
        self._attempts: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._leased: dict[str, int] = {}
        self._lost = 0

    @classmethod
    def earlier(
        cls, number: int, finished: Sequence[Trajectory] = (), *, version: int
    ) -> "HeldoutRound":
        """What is known of the evaluation ``number``, begun before: it hands nothing out."""
        known = cls(number, (), temperature=1.0, version=version)
        known.finished.extend(finished)
        return known

    def may_ask(self, version: int) -> bool:
        """Whether a task waits to be handed out, now that servers sample with ``version``."""
        return bool(self._waiting) and version >= self.version

    @property
    def comes_first(self) -> bool:
        """Whether its next task goes before any training task."""
        return self._pinned or self._passed_over >= _EVERY - 1

    def pass_over(self) -> None:
        """A training task went before its next one."""
        self._passed_over += 1

    @property
    def done(self) -> bool:
        """Every task has a trajectory or was given up."""
        return len(self.finished) + self._lost >= len(self._tasks)

    def lease(self) -> tuple[str, int, Task]:
        """Hand out the next task: lease id, place and task."""
        self._passed_over = 0
        place = self._waiting.popleft()
        self._attempts[place] += 1
        lease_id = lease_id_of(self._group_id, place, self._attempts[place])
        self._leased[lease_id] = place
        return lease_id, place, self._tasks[place]

    def settle(self, trajectory: Trajectory) -> bool:
        """A usable trajectory; returns whether it is of one of the leases of this evaluation."""
        if self._leased.pop(trajectory.trajectory_id, None) is None:
            return False
        self.finished.append(trajectory)
        return True

    def give_back(self, lease_id: str, *, failed: bool) -> None:
        """A lease ended without one: its task is tried again, up to a limit of what ``failed``."""
        place = self._leased.pop(lease_id, None)
        if place is None:
            return
        self._failures[place] += failed
        if self._failures[place] < MAX_ATTEMPTS:
            self._waiting.append(place)
        else:
            self._lost += 1
