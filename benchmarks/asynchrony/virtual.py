"""The same training under virtual time: what admission and depth alone leave of the ceiling.

The real coordinator, with episodes and steps as drawn. Nothing waits: the clock goes from one event
to the next, so that neither messages and disk nor the load of the machine cost anything, and the
same code gives the same figures anywhere.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean

from benchmarks.asynchrony.actor import ACTOR, sampled_with
from benchmarks.asynchrony.training import Measured, Span, TakenBatch, measured
from benchmarks.asynchrony.workload import Workload
from common.wire.records import Task, TaskLease, Trajectory
from common.wire.session import Hello
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import TaskOrder

_TASKS = [Task(task_id=f"t{number}", question="?", answers=("x",)) for number in range(64)]
_FOREVER_S = 1e9


def train_virtually(workload: Workload) -> Measured:
    """Train from the beginning to the last batch; seconds are those of the virtual clock."""
    return VirtualTraining(work=workload).play()


@dataclass(kw_only=True)
class VirtualTraining:
    """Of a workload; ``play`` it once."""

    work: Workload
    now: float = 0.0
    version: int = 0
    taken: list[TakenBatch] = field(default_factory=list)
    at_work: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        work = self.work
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ready_at: float | None = 0.0
        """Since when the learner waits; None while it trains."""
        self._state = Coordinator(
            TaskOrder(_TASKS, seed=work.seed), groups_per_batch=work.groups,
            group_size=work.group_size, max_staleness=work.max_staleness,
            depth=Depth(groups_per_batch=work.groups, max_staleness=work.max_staleness),
            total_batches=1 << 30, max_buffered_bytes=1 << 40, silence_s=_FOREVER_S,
            lease_timeout_s=_FOREVER_S,
        )  # fmt: skip
        self._state.join(
            Hello(actor_id=ACTOR, session="s", schema_version=0, credit=work.slots, kernel_level="")
        )

    def play(self) -> Measured:
        """To the last batch."""
        while len(self.taken) < self.work.batches:
            self._begin_what_can_be()
            self._take_what_there_is()
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        dropped = self._state.counters.dropped.total()
        return measured(self.work, self.taken, self.at_work, dropped=dropped, cpu_s=0.0)

    def _begin_what_can_be(self) -> None:
        for _, lease in self._state.hand_out(now=self.now):
            seconds = self.work.episode_s(lease.group_id, lease.sample_index)
            self.at_work.append(Span(self.now, self.now + seconds))
            self._later(seconds, self._finish, lease, self._state.version)

    def _take_what_there_is(self) -> None:
        if self._ready_at is None:
            return
        batch = self._state.take_batch(learner_version=self.version, now=self.now)
        if batch is not None:
            self.taken.append(self._as_taken(batch, self.now - self._ready_at))
            self._ready_at = None
            self._later(self.work.train_s, self._trained)
            self._begin_what_can_be()

    def _as_taken(self, batch: list[Trajectory], waited_s: float) -> TakenBatch:
        ages = [self.version - (trajectory.oldest_version or 0) for trajectory in batch]
        times = tuple(self.work.episode_s(t.group_id, t.sample_index) for t in batch)
        return TakenBatch(
            at=self.now, waited_s=waited_s, episodes_s=times, staleness=fmean(ages),
            staleness_max=max(ages), depth=self._state.depth.batches,
        )  # fmt: skip

    def _finish(self, lease: TaskLease, version: int) -> None:
        made = replace(
            sampled_with(version), trajectory_id=lease.lease_id, group_id=lease.group_id,
            sample_index=lease.sample_index, task_id=lease.task.task_id,
        )  # fmt: skip
        self._state.receive(f"{ACTOR}#s", made, learner_version=self.version, now=self.now)

    def _trained(self) -> None:
        self.version += 1
        self._state.version = self.version
        self._ready_at = self.now

    def _later(self, seconds: float, happens: Callable[..., None], *given: object) -> None:
        entry = (self.now + seconds, next(self._numbers), lambda: happens(*given))
        heapq.heappush(self._events, entry)
