"""With ``max_staleness = 0`` the asynchronous system is synchronous training, bit for bit.

A scripted policy stands in for the sampler (real batching is not reproducible): what it does is a
function of task, sample and weight version. It answers over real ZeroMQ in a shuffled order.
"""

import asyncio
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from common.config import Apg, Config, Objective
from common.wire.asynchronous import AsyncLine
from common.wire.codec import SCHEMA_VERSION, decode, encode
from common.wire.records import Task, TaskLease, Trajectory
from common.wire.session import Drain, Hello, Leave
from common.wire.sockets import Wire
from learner.checkpoints.state import Progress
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from learner.head import Head
from learner.loop import TrainingLoop
from learner.profiling import StepProfiler
from learner.record import BatchLog
from learner.saving import Saving
from learner.step.train_step import TrainStep
from learner.totals import Totals
from learner.weights.background import BackgroundPublisher
from learner.weights.verifier import ParityVerifier
from tests.makers import make_trajectory
from tests.tiny_policy import VOCABULARY, make_model
from tests.wires import Place, a_place

STEPS = 4
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]
CONFIG = Config(
    run=replace(Config().run, steps=STEPS),
    learner=replace(
        Config().learner, groups=2, group_size=3, max_staleness=0, learning_rate=1e-2,
        pack_tokens=512, checkpoint_every=1, batch_timeout_s=30.0,
    ),
    objective=Objective(apg=Apg(kappa=100.0)),
)  # fmt: skip


def scripted(lease: TaskLease, version: int) -> Trajectory:
    """What the scripted policy of ``version`` does with a task lease."""
    return scripted_sample(
        lease.lease_id, lease.group_id, lease.task.task_id, lease.sample_index, version
    )


def scripted_sample(
    lease_id: str, group_id: str, task_id: str, sample: int, version: int
) -> Trajectory:
    """What the scripted policy of ``version`` does with sample ``sample`` of a task."""
    rng = random.Random(f"{task_id}/{sample}/{version}")
    return make_trajectory(
        lease_id,
        group_id=group_id,
        sample_index=sample,
        version=version,
        reward=float(rng.random() < 0.5),
        lengths=[rng.randint(1, 4) for _ in range(rng.randint(1, 3))],
        seed=rng.randrange(1 << 30),
        vocabulary=VOCABULARY,
        task_id=task_id,
    )


@dataclass
class Servers:
    """Policy servers that take every version at once."""

    version: int = 0
    digests: tuple[str, ...] = ()
    seconds_paused: float = 0.0

    def publish(self, version: int, state: Mapping[str, Tensor]) -> "Servers":
        self.version = version
        self.digests = (*self.digests, digest(state))
        return self


class NoVerifier(ParityVerifier):
    """There is no server to compare with."""

    def __init__(self) -> None:
        pass

    def run(
        self, prompts: object, membership: object, wire: object, *, version: int, origin: str
    ) -> list[object]:
        return []

    def take_part(self) -> None:
        pass


class NoSaver:
    def save(self, progress: Progress) -> None:
        pass

    def is_busy(self) -> bool:
        return False

    def finish(self) -> None:
        pass


NO_SAVING = Saving(saver=NoSaver(), schedule=None)


def digest(state: Mapping[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(state):
        hashed.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return hashed.hexdigest()


Play = Callable[[TaskLease, int], Trajectory | None]
"""What is made of a lease by which version; None for nothing yet."""


@contextmanager
def answering(place: Place, servers: Servers, play: Play = scripted) -> Iterator[threading.Thread]:
    """An actor: answers all leases at hand in a random order, until it is drained or left."""
    left = threading.Event()
    actor = threading.Thread(target=_answer_leases, args=(place, servers, play, left))
    actor.start()
    try:
        yield actor
    finally:
        left.set()
        actor.join(timeout=10)


def _answer_leases(place: Place, servers: Servers, play: Play, left: threading.Event) -> None:
    with Wire(place.keys["a0"]) as wire:
        line = wire.connect_async(place.door.address, identity=b"a0#s")
        asyncio.run(_answer(line, servers, play, left))


async def _answer(line: AsyncLine, servers: Servers, play: Play, left: threading.Event) -> None:
    await line.send(
        encode(Hello(actor_id="a0", session="s", schema_version=SCHEMA_VERSION,
                     credit=50, kernel_level="none"))
    )  # fmt: skip
    rng = random.Random(0)
    later: list[TaskLease] = []
    while not left.is_set():
        held, later = later, []
        while await line.is_ready(timeout_ms=50 if not held else 5):
            record = decode(await line.receive())
            if isinstance(record, Drain):
                await line.send(encode(Leave(reason=record.reason)))
                line.close(linger_ms=1000)
                return
            if isinstance(record, TaskLease):
                held.append(record)
        rng.shuffle(held)
        for lease in held:
            if (made := play(lease, servers.version)) is not None:
                await line.send(encode(made))
            else:
                later.append(lease)
    line.close(linger_ms=0)


def run_asynchronously(folder: Path) -> tuple[str, ...]:
    """Digests of the published weights of a run of the whole learner."""
    servers = Servers()
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=2, group_size=3, max_staleness=0,
        total_batches=STEPS, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    with ExitStack() as stack:
        rank = stack.enter_context(training_processes())
        store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 24)
        place = stack.enter_context(a_place(["a0"]))
        intake = stack.enter_context(Intake(coordinator, store, place.door))
        publisher = stack.enter_context(
            BackgroundPublisher(servers, acknowledge=intake.acknowledge)
        )
        actor = stack.enter_context(answering(place, servers))
        model = shard(load_model(folder), rank, compute_dtype=torch.float32)
        optimizer = PolicyOptimizer(model, CONFIG.learner)
        head = Head(
            wire=place.wire,
            intake=intake, publisher=publisher, writers=(), family_of=lambda _: "all", heldout=(),
            batches=stack.enter_context(closing(BatchLog(folder / "batches.jsonl", after_step=0))),
        )  # fmt: skip
        learner = TrainingLoop(
            CONFIG, model=model, vocabulary=VOCABULARY,
            train_step=TrainStep(model, optimizer, rank, config=CONFIG.learner,
                                 objective=CONFIG.objective, temperature=1.0),
            verifier=NoVerifier(), saving=NO_SAVING, head=head, first_step=0,
            totals=Totals(),
            profiler=StepProfiler(model, folder / "profiles", steps=(2, 3)),
        )  # fmt: skip
        learner.run()
        intake.drain("done", timeout_s=10)
        actor.join(timeout=10)
        assert set(learner.totals.staleness) == {0}
    return servers.digests


def run_synchronously(folder: Path) -> tuple[str, ...]:
    """The same training as a plain loop: sample with the newest weights, then step."""
    order = TaskOrder(TASKS, seed=0)
    with training_processes() as rank:
        model = shard(load_model(folder), rank, compute_dtype=torch.float32)
        optimizer = PolicyOptimizer(model, CONFIG.learner)
        step = TrainStep(model, optimizer, rank, config=CONFIG.learner,
                         objective=CONFIG.objective, temperature=1.0)  # fmt: skip
        digests = [digest(full_state_dict(model))]
        for version in range(STEPS):
            groups = [(f"g{version}-{number}", order.next()) for number in range(2)]
            batch = [
                scripted_sample(f"{group}-{sample}", group, task.task_id, sample, version)
                for group, task in groups
                for sample in range(3)
            ]
            step.run(batch, version=version)
            digests.append(digest(full_state_dict(model)))
    return tuple(digests)


def test_staleness_zero_equals_synchronous_training_bit_for_bit(tmp_path: Path) -> None:
    make_model(tmp_path)

    asynchronous = run_asynchronously(tmp_path)
    synchronous = run_synchronously(tmp_path)

    assert len(set(synchronous)) == STEPS + 1
    assert asynchronous == synchronous


def test_traces_of_the_learner_show_its_packs_and_its_optimizer(tmp_path: Path) -> None:
    make_model(tmp_path)

    run_asynchronously(tmp_path)

    traces = sorted(path.name for path in (tmp_path / "profiles").iterdir())
    events = json.loads((tmp_path / "profiles" / traces[0]).read_text())["traceEvents"]
    names = {event["name"] for event in events}
    assert traces == ["step-000002-rank0.json", "step-000003-rank0.json"]
    assert {"pack 0", "aten::mm", "Optimizer.step#AdamW.step"} <= names
