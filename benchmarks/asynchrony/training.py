"""One training with simulated episodes and steps: everything between the two is the product's.

consumes   a workload; the actor of ``benchmarks.asynchrony.actor``, a process of its own
produces   when each batch was taken and what was in it
waits for  batches, and for a timer in place of each step

Coordinator, intake, journal (fdatasync), trajectory store and publisher are those of a learner, the
connection a Unix socket with CURVE. New weights are there at once.
"""

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from benchmarks.asynchrony.actor import ACTOR, AT_WORK, VERSION
from benchmarks.asynchrony.served_version import ServedVersion
from benchmarks.asynchrony.workload import Workload, ceiling_s, synchronous_s, written
from common.child_process import child_command, module_environment
from common.errors import RunError
from common.json_output import json_text
from common.places import LEARNER, Address
from common.plan_file import keys_file
from common.wire.keys import write_key_pair
from common.wire.records import Task, Trajectory
from common.wire.sockets import Wire, new_key_pair
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.store_process import StoreProcess
from learner.journal.writer import JournalWriter
from learner.weights.background import BackgroundPublisher

_TASKS = [Task(task_id=f"t{number}", question="?", answers=("x",)) for number in range(64)]
_BATCH_TIMEOUT_S = 300.0
_LEAVING_S = 30.0


class Span(NamedTuple):
    """Seconds of the monotonic clock."""

    began: float
    ended: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenBatch:
    """What a batch was.

    Attributes:
        at: when the learner had it, seconds of the monotonic clock.
        waited_s: for how long the learner had waited.
        episodes_s: what its episodes were drawn to take, by group and member.
        staleness: versions by which its trajectories lagged, mean.
        staleness_max: the same, most.
        depth: how far ahead of the learner sampling might run then, in batches.
    """

    at: float
    waited_s: float
    episodes_s: tuple[float, ...]
    staleness: float
    staleness_max: int
    depth: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one training came to, between two batches far apart.

    Attributes:
        seconds: between the first batch counted from and the last.
        batches: in these seconds.
        learner_idle: part of them in which the learner waited.
        slots_idle: part of them in which slots had no episode.
        ceiling_s: the least that these batches can take, synchronous or not.
        closed_form_s: what they take if each ends with its slowest episode, then trains, and its
            groups are those that were taken here.
        staleness, staleness_max: versions by which actions lagged, mean and most.
        depth: mean, in batches.
        dropped: trajectories, of all that came.
        cpu_s: processor seconds of learner and actor, of the whole training and their start.
    """

    workload: Workload
    seconds: float
    batches: int
    learner_idle: float
    slots_idle: float
    ceiling_s: float
    closed_form_s: float
    staleness: float
    staleness_max: int
    depth: float
    dropped: int
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Trajectories trained on per second."""
        return self.batches * self.workload.batch / self.seconds

    @property
    def share_of_ceiling(self) -> float:
        """The rate, divided by the highest that the slower side alone would allow."""
        return self.ceiling_s / self.seconds

    @property
    def vs_closed_form(self) -> float:
        """The rate, divided by that of synchronous training on the same batches, closed form."""
        return self.closed_form_s / self.seconds


def train(workload: Workload) -> Measured:
    """Train from the beginning to the last batch, in a folder that is removed.

    Raises:
        LZeroError: no batch came in time, or the actor failed.
    """
    used = _cpu_s()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taken, dropped = _train_in(folder, workload)
        at_work = [Span(*span) for span in json.loads((folder / AT_WORK).read_text())]
    return measured(workload, taken, at_work, dropped=dropped, cpu_s=_cpu_s() - used)


def measured(
    workload: Workload, taken: list[TakenBatch], at_work: list[Span], *, dropped: int, cpu_s: float
) -> Measured:
    """What these batches say from ``counted_from`` on; pure."""
    first, *rest = taken[workload.counted_from :]
    window = Span(first.at, rest[-1].at)
    seconds = window.ended - window.began
    generated = [batch.episodes_s for batch in rest]
    busy_s = sum(_overlap_s(span, window) for span in at_work)
    return Measured(
        workload=workload,
        seconds=seconds,
        batches=len(rest),
        learner_idle=sum(batch.waited_s for batch in rest) / seconds,
        slots_idle=max(0.0, 1 - busy_s / (workload.slots * seconds)),
        ceiling_s=ceiling_s(generated, workload),
        closed_form_s=synchronous_s(generated, workload),
        staleness=fmean(batch.staleness for batch in rest),
        staleness_max=max(batch.staleness_max for batch in rest),
        depth=fmean(batch.depth for batch in rest),
        dropped=dropped,
        cpu_s=cpu_s,
    )


def _overlap_s(span: Span, window: Span) -> float:
    return max(0.0, min(span.ended, window.ended) - max(span.began, window.began))


def _train_in(folder: Path, workload: Workload) -> tuple[list[TakenBatch], int]:
    with ExitStack() as stack:
        servers = SimulatedServers(stack.enter_context(ServedVersion(folder / VERSION)))
        intake = stack.enter_context(_intake(folder, workload))
        publisher = BackgroundPublisher(servers, acknowledge=intake.acknowledge)
        publisher = stack.enter_context(publisher)
        taken = [_step(intake, publisher, workload, version) for version in range(workload.batches)]
        dropped = intake.counters().dropped.total()
        intake.drain("the training is over", timeout_s=_LEAVING_S)
        return taken, dropped


def _step(
    intake: Intake, publisher: BackgroundPublisher, workload: Workload, version: int
) -> TakenBatch:
    """Take a batch, train, publish."""
    began = time.monotonic()
    batch = intake.take_batch(learner_version=version, timeout_s=_BATCH_TIMEOUT_S)
    assert batch is not None
    at = time.monotonic()
    time.sleep(workload.train_s)
    publisher.submit(version + 1, {})
    ages = [version - (trajectory.oldest_version or 0) for trajectory in batch]
    return TakenBatch(
        at=at,
        waited_s=at - began,
        episodes_s=tuple(_drawn_s(trajectory, workload) for trajectory in batch),
        staleness=fmean(ages),
        staleness_max=max(ages),
        depth=intake.depth(),
    )


def _drawn_s(trajectory: Trajectory, workload: Workload) -> float:
    return workload.episode_s(trajectory.group_id, trajectory.sample_index)


@dataclass(frozen=True)
class Publish:
    """Nothing was paused."""

    seconds_paused: float = 0.0


class SimulatedServers:
    """Policy servers that have new weights at once."""

    def __init__(self, version: ServedVersion) -> None:
        self._version = version

    def publish(self, version: int, state: Mapping[str, Tensor]) -> Publish:
        """Sample with ``version`` from now on."""
        self._version.become(version)
        return Publish()


@contextmanager
def _intake(folder: Path, workload: Workload) -> Iterator[Intake]:
    """Everything that decides, with an actor on the line; whoever is done drains it."""
    keys = {name: new_key_pair() for name in (LEARNER, ACTOR)}
    for name, pair in keys.items():
        write_key_pair(keys_file(folder, name), pair)
    with ExitStack() as stack:
        wire = stack.enter_context(Wire(keys[LEARNER]))
        place = Address(bind=str(folder / "door"))
        door = wire.listen("coordinator", place, {keys[ACTOR].public: ACTOR}, ACTOR_LIMITS)
        store = StoreProcess(folder / "trajectories", limit_bytes=64 << 20)
        journal = stack.enter_context(JournalWriter(folder / "journal"))
        coordinator = _coordinator(workload)
        intake = stack.enter_context(Intake(coordinator, store, door, journal=journal))
        stack.enter_context(_actor(folder, door.address, workload))
        yield intake


def _coordinator(workload: Workload) -> Coordinator:
    """As a run has it; there are always more batches to come, so that sampling never ebbs."""
    return Coordinator(
        TaskOrder(_TASKS, seed=workload.seed),
        groups_per_batch=workload.groups,
        group_size=workload.group_size,
        max_staleness=workload.max_staleness,
        depth=Depth(groups_per_batch=workload.groups, max_staleness=workload.max_staleness),
        total_batches=1 << 30,
        max_buffered_bytes=4 << 30,
    )


@contextmanager
def _actor(folder: Path, address: Address, workload: Workload) -> Iterator[None]:
    """The actor's process; it ends by itself once the coordinator says drain."""
    words = (str(folder), json_text(asdict(address)), written(workload))
    command = child_command("benchmarks.asynchrony.actor", *words)
    process = subprocess.Popen(command, env=module_environment(os.environ))
    try:
        yield
        if process.wait(_LEAVING_S) != 0:
            raise RunError(f"the simulated actor ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def _cpu_s() -> float:
    """Of this process and of its children that have ended."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in both]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
