"""Held-out tasks being run under one weight version."""

from collections import Counter, deque
from collections.abc import Sequence

from common.wire.records import Task, Trajectory
from learner.coordination.groups import MAX_ATTEMPTS
from learner.coordination.leases import lease_id_of


class HeldoutRound:
    """Every task ends with one trajectory, or is given up after ``MAX_ATTEMPTS`` failed tries."""

    def __init__(self, number: int, tasks: Sequence[Task], *, temperature: float) -> None:
        """The evaluation ``number`` of the run; nothing is handed out yet."""
        self.temperature = temperature
        self.finished: list[Trajectory] = []
        self._group_id = f"e{number:06d}"
        self._tasks = tuple(tasks)
        self._waiting = deque(range(len(tasks)))
        self._attempts: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._leased: dict[str, int] = {}
        self._lost = 0

    @classmethod
    def earlier(cls, number: int, finished: Sequence[Trajectory] = ()) -> "HeldoutRound":
        """What is known of the evaluation ``number``, begun before: it hands nothing out."""
        known = cls(number, (), temperature=1.0)
        known.finished.extend(finished)
        return known

    @property
    def has_waiting(self) -> bool:
        """Whether a task waits to be handed out."""
        return bool(self._waiting)

    @property
    def done(self) -> bool:
        """Every task has a trajectory or was given up."""
        return len(self.finished) + self._lost >= len(self._tasks)

    def lease(self) -> tuple[str, int, Task]:
        """Hand out the next task: lease id, place and task."""
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
