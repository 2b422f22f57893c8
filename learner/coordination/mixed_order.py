"""The order of training tasks that come from several sources, or families, in a ratio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from common.evaluation import family_of
from common.wire.records import Task
from learner.coordination.groups import Order, TaskOrder, check_sources


@dataclass(frozen=True, slots=True)
class WeightedTasks:
    """The tasks of a source and its weight, which counts against those of the others."""

    name: str
    tasks: Sequence[Task]
    weight: float


class MixedOrder:
    """Draws from sources so that the parts are right at every moment, not only in the long run.

    Source: the quota method (Balinski & Young 1975, "The quota method of apportionment"). After n
    draws a source with the share s of all weights was drawn from floor(n s) or ceil(n s) times. Who
    is next depends on those numbers alone, and within a source the order is that of a ``TaskOrder``
    of its own seed, so the sources' cursors are all that a checkpoint needs.
    """

    def __init__(self, sources: Sequence[WeightedTasks], *, seed: int) -> None:
        """Begin with the first task of each.

        Raises:
            ValueError: there is no source, or one without tasks.
        """
        if not sources:
            raise ValueError("at least one source of training tasks is needed, got none")
        total = sum(Fraction(source.weight) for source in sources)
        self._shares = {source.name: Fraction(source.weight) / total for source in sources}
        self._orders = {
            source.name: TaskOrder(source.tasks, seed=f"{seed}/{source.name}") for source in sources
        }
        self._by_id = {task.task_id: task for source in sources for task in source.tasks}

    @property
    def cursors(self) -> dict[str, int]:
        """Tasks given out so far, by source."""
        return {name: order.cursor for name, order in self._orders.items()}

    def go_to(self, cursors: Mapping[str, int]) -> None:
        """Go on where ``cursors`` were taken.

        Raises:
            InputError: they are of other sources.
        """
        check_sources(cursors, self.cursors)
        for name, order in self._orders.items():
            order.cursor = cursors[name]

    def next(self) -> Task:
        """The next task; never ends."""
        return self._orders[self._next_source()].next()

    def by_id(self, task_id: str) -> Task:
        """The task of that id; KeyError when no source has it."""
        return self._by_id[task_id]

    def _next_source(self) -> str:
        """Of those below their upper quota, the one whose next task is due first."""
        cursors = self.cursors
        drawn = sum(cursors.values()) + 1
        below = [name for name, share in self._shares.items() if cursors[name] < drawn * share]
        return min(below, key=lambda name: (cursors[name] + 1) / self._shares[name])


def order_of_families(tasks: Sequence[Task], *, seed: int) -> Order:
    """Tasks of one file, in an order in which every family has its part at every moment.

    A batch has so few groups that of tasks in any order one is often without a family; the weights
    it makes are worse at that.

    Raises:
        ValueError: there are no tasks.
    """
    families: dict[str, list[Task]] = {}
    for task in tasks:
        families.setdefault(family_of(task), []).append(task)
    if len(families) < 2:
        return TaskOrder(tasks, seed=seed)
    return MixedOrder(
        [WeightedTasks(name, some, len(some)) for name, some in families.items()], seed=seed
    )
