"""The learner, asked to stop, saves what it has and can go on; so it does on a disk with no room.

A scripted actor answers over real ZeroMQ; checkpoints are real ones.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue

import torch

from actors.link import CoordinatorLink
from actors.runner import run_leases
from common.config import Config
from common.stopping import StopRequest
from common.wire.records import TaskLease, Trajectory
from common.wire.sockets import Wire
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import find_damage
from learner.checkpoints.resume import load_newest
from learner.checkpoints.schedule import SaveSchedule
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.ledger import restore_ledger
from learner.coordination.store import TrajectoryStore
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import shard
from learner.loop import Head, TrainingLoop
from learner.record import BatchLog
from learner.saving import FailedSaves, Saving
from learner.step.train_step import TrainStep
from learner.totals import Totals, unpack_ledger
from learner.weights.background import BackgroundPublisher
from tests.integration.test_synchronous_training import (
    CONFIG,
    STEPS,
    TASKS,
    NoVerifier,
    Servers,
    answer_leases,
    scripted,
)
from tests.saved_checkpoint import latest_checkpoint
from tests.tiny_policy import VOCABULARY, make_model
from tests.wires import a_place

HELD = 3
Play = Callable[[TaskLease, int], Trajectory]
SETTINGS: Config = replace(CONFIG, run=replace(CONFIG.run, grace_s=20.0))


@dataclass(kw_only=True)
class Attempt:
    """One life of a learner in ``folder``, and what came of it."""

    folder: Path
    every: int = 100
    stop: StopRequest = field(default_factory=StopRequest)
    told: list[str] = field(default_factory=list)
    tell: Callable[[str], None] = lambda text: None
    failed: FailedSaves = field(default_factory=FailedSaves)
    first_step: int = 0
    counters: Counters = field(default_factory=Counters)

    def run(self, play: Play = scripted) -> bool:
        """Train as ``learner.main`` does, from the newest checkpoint; whether to the end."""
        servers = Servers()
        coordinator = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=2, group_size=3, max_staleness=0,
            total_batches=STEPS, max_buffered_bytes=1 << 30,
        )  # fmt: skip
        with ExitStack() as stack:
            rank = stack.enter_context(training_processes())
            model = shard(load_model(self.folder), rank, compute_dtype=torch.float32)
            optimizer = PolicyOptimizer(model, CONFIG.learner)
            checkpoints = self.folder / "checkpoints"
            progress = load_newest(checkpoints, model, optimizer, rank)
            if progress is not None:
                self.first_step = progress.step
                restore_ledger(coordinator, unpack_ledger(progress.ledger)[0])
            saver = stack.enter_context(
                Checkpointer(
                    checkpoints,
                    model,
                    optimizer,
                    rank,
                    model_source=self.folder,
                    export_dtype=torch.float32,
                    keep=1,
                )
            )
            place = stack.enter_context(a_place(["a0"]))
            store = TrajectoryStore(self.folder / "trajectories", limit_bytes=1 << 24)
            intake = stack.enter_context(
                Intake(coordinator, store, place.door, version=self.first_step)
            )
            servers.version = self.first_step
            publisher = BackgroundPublisher(servers, acknowledge=intake.acknowledge)
            batches = BatchLog(self.folder / "batches.jsonl", after_step=self.first_step)
            head = Head(
                intake=intake, publisher=stack.enter_context(publisher), writers=(), heldout=(),
                family_of=lambda _: "all", batches=stack.enter_context(closing(batches)),
            )  # fmt: skip
            actor = threading.Thread(target=answer_leases, args=(place, servers, play))
            actor.start()
            learner = TrainingLoop(
                SETTINGS, model=model, vocabulary=VOCABULARY, rank=rank,
                train_step=TrainStep(model, optimizer, rank, config=CONFIG.learner,
                                     objective=CONFIG.objective, temperature=1.0),
                verifier=NoVerifier(), head=head, first_step=self.first_step, totals=Totals(),
                saving=Saving(
                    saver=saver, schedule=SaveSchedule(steps=self.every, minutes=0, now=0),
                    stop=self.stop, tell=self.tell, failed=self.failed,
                ),
            )  # fmt: skip
            is_done = learner.run()
            saver.finish()
            intake.drain("done", timeout_s=10)
            actor.join(timeout=10)
            self.counters = intake.counters()
        return is_done


def test_a_learner_that_is_asked_to_stop_goes_on_where_it_stood(tmp_path: Path) -> None:
    make_model(tmp_path)
    first = Attempt(folder=tmp_path)

    def asking(lease: TaskLease, version: int) -> Trajectory:
        if version == 2:
            first.stop.note()  # in the middle of a batch
        return scripted(lease, version)

    assert not first.run(asking)

    saved = latest_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert find_damage(saved) == []
    assert saved.name in ("step-000002", "step-000003")
    second = Attempt(folder=tmp_path)
    assert second.run()
    assert second.first_step == int(saved.name[-6:])
    counted = second.counters
    assert counted.trained == STEPS * 6
    assert counted.started == counted.trained + counted.dropped.total()
    lines = (tmp_path / "batches.jsonl").read_text().splitlines()
    assert len(lines) == STEPS


def test_a_disk_that_takes_no_checkpoint_ends_nothing(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "checkpoints").write_text("in the way")
    told: list[str] = []

    def clear(text: str) -> None:
        told.append(text)
        (tmp_path / "checkpoints").unlink()

    attempt = Attempt(folder=tmp_path, every=1, tell=clear)
    assert attempt.run()

    (text,) = told
    assert "step-000001' could not be written, those before it are kept: " in text
    assert attempt.failed.count == 1
    saved = latest_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.name == f"step-{STEPS:06d}"
    assert find_damage(saved) == []


class Halting:
    """Episodes of which the first ends once the drain is heard, and no other ever does."""

    def __init__(self, link: CoordinatorLink) -> None:
        self._link = link
        self._begun = 0
        self.all_begun = threading.Event()

    async def run(self, lease: TaskLease) -> Trajectory:
        self._begun += 1
        if self._begun == HELD:
            self.all_begun.set()
        while lease.sample_index or not self._link.finish_s:
            await asyncio.sleep(0.01)
        return scripted(lease, 0)


def test_a_drain_takes_what_is_finished_in_its_time_and_hands_out_again_the_rest(
    tmp_path: Path,
) -> None:
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=1, group_size=HELD, max_staleness=0,
        total_batches=1, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    with ExitStack() as stack:
        place = stack.enter_context(a_place(["a0"]))
        store = TrajectoryStore(tmp_path, limit_bytes=1 << 24)
        intake = stack.enter_context(Intake(coordinator, store, place.door))
        wire = stack.enter_context(Wire(place.keys["a0"]))
        begun: Queue[threading.Event] = Queue()

        async def act() -> int:
            link = CoordinatorLink(
                wire, place.door.address, actor_id="a0", credit=9, kernel_level="",
                heartbeat_s=0.1, resend_s=5.0, silence_s=60.0,
            )  # fmt: skip
            runner = Halting(link)
            begun.put(runner.all_begun)
            return await run_leases(link, runner)  # type: ignore[arg-type]

        actor = threading.Thread(target=lambda: asyncio.run(act()))
        actor.start()
        assert begun.get(timeout=10).wait(timeout=10)

        intake.drain("stop", finish_s=1.0, timeout_s=10)

        actor.join(timeout=10)
        counted = intake.counters()
        assert not coordinator.sessions
    assert (counted.started, counted.finished) == (HELD, 1)
    assert counted.dropped == {"actor_left": HELD - 1}
    (group,) = coordinator.groups.open_groups.values()
    assert sorted(group.waiting) == [1, 2]
