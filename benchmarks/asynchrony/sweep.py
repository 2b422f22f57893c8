"""The sweep: which trainings are compared, in which order they run, and what comes of a pair."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from multiprocessing import get_context

from benchmarks.asynchrony.training import Measured, train
from benchmarks.asynchrony.virtual import train_virtually
from benchmarks.asynchrony.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is varied, and how long each training goes on.

    Attributes:
        train_over_generation: times of a step, over that in which all slots generate a batch.
        batch_over_slots: sizes of a batch, over the slots.
        slots: episodes at once.
        group_size: trajectories of a group.
        median_s: of the time of an episode, seconds.
        max_staleness: the bound of asynchronous training.
        warm_medians: median episode times before the clock of an asynchronous training starts.
        counted_medians: the same, for which it runs.
        least_batches: that a training is counted for.
        synchronous_trajectories: for which a synchronous training is counted.
        at_once: synchronous trainings that run beside each other; they mostly wait.
        seed: of the episode times.
    """

    train_over_generation: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    batch_over_slots: tuple[float, ...] = (1.0, 2.0, 4.0)
    slots: int = 64
    group_size: int = 8
    median_s: float = 0.2
    max_staleness: int = 32
    warm_medians: float = 30.0
    counted_medians: float = 90.0
    least_batches: int = 8
    synchronous_trajectories: int = 1280
    at_once: int = 4
    seed: int = 0

    @property
    def cells(self) -> Iterator[tuple[float, float]]:
        """Pairs of times of a step and sizes of a batch."""
        return product(self.train_over_generation, self.batch_over_slots)

    def asynchronous(self, train_over_generation: float, batch_over_slots: float) -> Workload:
        """The training of a cell that runs ahead."""
        work = self._workload(train_over_generation, batch_over_slots, self.max_staleness)
        step_medians = max(work.generation_s, work.train_s) / work.median_s
        warm = ceil(self.warm_medians / step_medians) + 2
        counted = max(self.least_batches, ceil(self.counted_medians / step_medians))
        return replace(work, batches=warm + 1 + counted, counted_from=warm)

    def synchronous(self, train_over_generation: float, batch_over_slots: float) -> Workload:
        """The training of a cell that does not; the first batch starts the clock."""
        work = self._workload(train_over_generation, batch_over_slots, 0)
        counted = max(self.least_batches, ceil(self.synchronous_trajectories / work.batch))
        return replace(work, batches=1 + counted)

    def _workload(self, train: float, batch: float, max_staleness: int) -> Workload:
        return Workload(
            slots=self.slots,
            groups=round(self.slots * batch / self.group_size),
            group_size=self.group_size,
            median_s=self.median_s,
            train_over_generation=train,
            max_staleness=max_staleness,
            batches=0,
            counted_from=0,
            seed=self.seed,
        )


QUICK = Sweep(
    train_over_generation=(1.0,),
    batch_over_slots=(1.0, 4.0),
    slots=16,
    group_size=4,
    median_s=0.1,
    warm_medians=20.0,
    counted_medians=30.0,
    least_batches=4,
    synchronous_trajectories=64,
    at_once=2,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Both trainings of the same step time and batch; ``virtual`` is ``ahead`` in virtual time."""

    train_over_generation: float
    batch_over_slots: float
    ahead: Measured
    synchronous: Measured
    virtual: Measured

    @property
    def name(self) -> str:
        """Of its figures."""
        return f"train_{self.train_over_generation:g}/batch_{self.batch_over_slots:g}"

    @property
    def async_vs_sync(self) -> float:
        """Trajectories per second, asynchronous divided by synchronous."""
        return self.ahead.per_s / self.synchronous.per_s

    @property
    def sync_vs_closed_form(self) -> float:
        """Seconds of the synchronous training, divided by those of its closed form."""
        return 1 / self.synchronous.vs_closed_form


def run_sweep(sweep: Sweep, say: Callable[[str], None]) -> list[Cell]:
    """Every cell: in virtual time; then what is synchronous, some at once; then what is not.

    Raises:
        LZeroError: a training got no batch, or lost its actor.
    """
    cells = list(sweep.cells)
    works = [sweep.asynchronous(*cell) for cell in cells]
    virtual = _run_all(train_virtually, works, 1, say)
    still = _run_all(train, [sweep.synchronous(*cell) for cell in cells], sweep.at_once, say)
    ahead = _run_all(train, works, 1, say)
    return [
        Cell(
            train_over_generation=train_share,
            batch_over_slots=batch_share,
            ahead=ahead[place],
            synchronous=still[place],
            virtual=virtual[place],
        )
        for place, (train_share, batch_share) in enumerate(cells)
    ]


def run_scales(
    sweep: Sweep, scales: Sequence[float], say: Callable[[str], None]
) -> dict[float, Measured]:
    """The asynchronous training of equal times and sizes, with all times longer or shorter."""
    works = [
        replace(sweep, median_s=sweep.median_s * scale).asynchronous(1.0, 1.0) for scale in scales
    ]
    return dict(zip(scales, _run_all(train, works, 1, say), strict=True))


def _run_all(
    training: Callable[[Workload], Measured],
    works: Sequence[Workload],
    at_once: int,
    say: Callable[[str], None],
) -> list[Measured]:
    """In processes of their own: each is a learner with threads, and has an actor beside it."""
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(training, work) for work in works]
        found = []
        for number, (work, future) in enumerate(zip(works, futures, strict=True)):
            kind = "asynchronous" if work.max_staleness else "synchronous"
            time = " in virtual time" if training is train_virtually else ""
            say(f"{kind} training {number + 1} of {len(works)}{time}")
            found.append(future.result())
        return found
