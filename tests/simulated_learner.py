"""A run under virtual time: the real coordinator, actors and a learner that take drawn times.

Nothing waits: the clock goes from one event to the next.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from common.wire.records import Task, TaskLease
from common.wire.session import Hello
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import TaskOrder
from tests.makers import make_trajectory

GROUPS, SIZE = 8, 2
BATCH = GROUPS * SIZE
BOUND = 3
PUBLISH_S = 0.4
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(50)]


@dataclass(kw_only=True)
class SimulatedRun:
    """Times are seconds.

    Attributes:
        episode_s: mean time of an episode at a given step; episodes run side by side.
        train_s: mean time of a step.
        credit: episodes in flight at most.
        spread: standard deviation of both times, as a part of themselves.
    """

    depth: Depth
    episode_s: Callable[[int], float]
    train_s: float = 3.0
    credit: int = 12
    steps: int = 40
    spread: float = 0.4
    now: float = 0.0
    learner: int = 0
    waited_s: float = 0.0
    ages: list[float] = field(default_factory=list)
    """Mean staleness of each batch."""
    depths: list[float] = field(default_factory=list)
    """After each batch."""

    def __post_init__(self) -> None:
        self._times = {name: random.Random(name) for name in ("episode", "train")}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ready_at: float | None = 0.0
        """Since when the learner waits; None while it trains."""
        self._state = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE,
            max_staleness=BOUND, depth=self.depth, total_batches=self.steps,
            max_buffered_bytes=1 << 30, silence_s=1e9, lease_timeout_s=1e9,
        )  # fmt: skip
        hello = Hello(
            actor_id="a", session="s", schema_version=0, credit=self.credit, kernel_level=""
        )
        self._state.join(hello)

    @property
    def staleness(self) -> float:
        """Mean over the run."""
        return fmean(self.ages)

    def play(self) -> "SimulatedRun":
        """To the end of the last step."""
        while self.learner < self.steps:
            self._begin_what_can_be()
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        return self

    def _begin_what_can_be(self) -> None:
        for _, lease in self._state.hand_out(now=self.now):
            mean = self.episode_s(self.learner)
            self._later(self._drawn("episode", mean), self._finish, lease, self._state.version)
        if self._ready_at is None:
            return
        batch = self._state.take_batch(learner_version=self.learner, now=self.now)
        if batch is not None:
            self.ages.append(fmean(self.learner - (t.oldest_version or 0) for t in batch))
            self.depths.append(self.depth.batches)
            self.waited_s += self.now - self._ready_at
            self._ready_at = None
            self._later(self._drawn("train", self.train_s), self._trained)

    def _finish(self, lease: TaskLease, version: int) -> None:
        made = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            version=version, task_id=lease.task.task_id, actor_id="a",
        )  # fmt: skip
        self._state.receive("a#s", made, learner_version=self.learner, now=self.now)

    def _trained(self) -> None:
        self.learner += 1
        self._ready_at = self.now
        self._later(PUBLISH_S, self._serve, self.learner)

    def _serve(self, version: int) -> None:
        self._state.version = version

    def _drawn(self, name: str, mean: float) -> float:
        return max(mean * 0.1, self._times[name].gauss(mean, mean * self.spread))

    def _later(self, seconds: float, happens: Callable[..., None], *given: object) -> None:
        entry = (self.now + seconds, next(self._numbers), lambda: happens(*given))
        heapq.heappush(self._events, entry)


def mean_of(values: Sequence[float], *, since: int) -> float:
    """The mean from a step on."""
    return fmean(values[since:])
