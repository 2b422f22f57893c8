"""One life of a learner in a folder, put together as ``learner.main`` does it, journal and all.

Its actor is a scripted one over real ZeroMQ, its policy servers take every version at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from common.config import Config
from common.stopping import StopRequest
from common.telemetry.step_record import StepRecord
from common.wire.records import Task
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import oldest_step
from learner.checkpoints.resume import load_newest
from learner.checkpoints.schedule import SaveSchedule
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.ledger import journal_position, restore_ledger
from learner.coordination.replay import Replay
from learner.coordination.store import TrajectoryStore
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import shard
from learner.head import Head
from learner.journal.segments import begin_journal
from learner.journal.writer import JournalWriter
from learner.loop import TrainingLoop
from learner.record import BatchLog
from learner.saving import FailedSaves, Saver, Saving
from learner.step.train_step import TrainStep
from learner.totals import Totals, unpack_ledger
from learner.weights.background import BackgroundPublisher
from tests.integration.test_synchronous_training import (
    CONFIG,
    TASKS,
    NoVerifier,
    Play,
    Servers,
    answering,
    scripted,
)
from tests.tiny_policy import VOCABULARY
from tests.wires import Place, a_place


@dataclass
class Records:
    """Keeps the records of steps."""

    records: list[StepRecord] = field(default_factory=list)

    def write(self, record: StepRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


@dataclass(kw_only=True)
class Life:
    """What a learner is given, and what came of it.

    Attributes:
        every: steps between checkpoints; unless there is a ``schedule``.
        keep: newest checkpoints that stay.
        goes_on: decides about ``resume``, where that is not known before.
        play: what its actor does; None where one comes by itself to the door of ``place_of``.
        heldout: questions asked while training, as ``config.evaluation`` says.
        saver_of: stands between the loop and its checkpoints.
        replayed: steps that the journal had.
        asked: versions whose held-out score came, in order.
    """

    folder: Path
    model_folder: Path
    config: Config = CONFIG
    every: int = 100
    schedule: SaveSchedule | None = None
    resume: bool = True
    goes_on: Callable[[Rank], bool] | None = None
    heldout: Sequence[Task] = ()
    play: Play | None = scripted
    place_of: Callable[[], AbstractContextManager[Place]] = lambda: a_place(["a0"])
    servers: Servers = field(default_factory=Servers)
    stop: StopRequest = field(default_factory=StopRequest)
    tell: Callable[[str], None] = lambda text: None
    saver_of: Callable[[Checkpointer], Saver] = lambda saver: saver
    keep_journal: bool = False
    keep: int = 1

    failed: FailedSaves = field(default_factory=FailedSaves)
    first_step: int = 0
    replayed: int = 0
    counters: Counters = field(default_factory=Counters)
    records: list[StepRecord] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def run(self) -> bool:
        """Train from the newest checkpoint and the journal; whether to the end."""
        with ExitStack() as stack:
            rank = stack.enter_context(training_processes())
            if self.goes_on is not None:
                self.resume = self.goes_on(rank)
            model = shard(load_model(self.model_folder), rank, compute_dtype=torch.float32)
            optimizer = PolicyOptimizer(model, self.config.learner)
            progress = None
            if self.resume:
                progress = load_newest(self.folder / "checkpoints", model, optimizer, rank)
            ledger, totals = unpack_ledger(progress.ledger) if progress else (None, Totals())
            self.first_step = progress.step if progress else 0
            saver = stack.enter_context(
                Checkpointer(
                    self.folder / "checkpoints", model, optimizer, rank,
                    model_source=self.model_folder, export_dtype=torch.float32, keep=self.keep,
                )
            )  # fmt: skip
            head = stack.enter_context(self._head(ledger)) if rank.is_first else None
            learner = TrainingLoop(
                self.config, model=model, vocabulary=VOCABULARY,
                train_step=TrainStep(model, optimizer, rank, config=self.config.learner,
                                     objective=self.config.objective, temperature=1.0),
                verifier=NoVerifier(), head=head, first_step=self.first_step, totals=totals,
                saving=self._saving(saver, rank),
            )  # fmt: skip
            is_done = learner.run()
            saver.finish()
            if head is not None:
                head.intake.forget_before(head.oldest_checkpoint())
                head.intake.drain("done", timeout_s=10)
                self.counters = head.intake.counters()
        return is_done

    def _saving(self, saver: Checkpointer, rank: Rank) -> Saving:
        schedule = self.schedule or SaveSchedule(steps=self.every, minutes=0, now=0)
        return Saving(
            saver=self.saver_of(saver), schedule=schedule if rank.is_first else None,
            stop=self.stop, tell=self.tell, failed=self.failed,
        )  # fmt: skip

    @contextmanager
    def _head(self, ledger: bytes | None) -> Iterator[Head]:
        """What rank 0 has, and an actor that answers its leases."""
        learner = self.config.learner
        coordinator = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=learner.groups,
            group_size=learner.group_size, max_staleness=learner.max_staleness,
            total_batches=self.config.run.steps, max_buffered_bytes=1 << 30,
        )  # fmt: skip
        since = journal_position(ledger) if ledger else 0
        journal_folder = self.folder / "journal"
        found = begin_journal(journal_folder, since=since, resume=self.resume, tell=print)
        if ledger:
            restore_ledger(coordinator, ledger)
        replay = Replay(coordinator, found.places, serial=since) if self.resume else None
        self.replayed = replay.batches if replay else 0
        self.servers.version = self.first_step + self.replayed
        checkpoints = self.folder / "checkpoints"
        with ExitStack() as stack:
            journal = JournalWriter(
                journal_folder, first_serial=found.next_serial, earlier=found.segments,
                keep=self.keep_journal,
            )  # fmt: skip
            journal = stack.enter_context(journal)
            place = stack.enter_context(self.place_of())
            store = TrajectoryStore(self.folder / "trajectories", limit_bytes=1 << 24)
            intake = Intake(
                coordinator, store, place.door, version=self.first_step, journal=journal,
                replay=replay,
            )  # fmt: skip
            intake = stack.enter_context(intake)
            publisher = BackgroundPublisher(self.servers, acknowledge=intake.acknowledge)
            publisher = stack.enter_context(publisher)
            if self.play is not None:
                stack.enter_context(answering(place, self.servers, self.play))
            batches = BatchLog(self.folder / "batches.jsonl", after_step=self.first_step)
            yield Head(
                wire=place.wire,
                intake=intake, publisher=publisher, writers=(Records(self.records),),
                family_of=lambda _: "all", heldout=self.heldout,
                batches=stack.enter_context(closing(batches)), replay=replay,
                oldest_checkpoint=partial(oldest_step, checkpoints),
                scored=lambda step, score: self.asked.append(step),
            )  # fmt: skip


def with_steps(steps: int, *, during_every: int = 0, pinned: bool = True) -> Config:
    """The configuration of a run of that length, with an evaluation every so many steps."""
    return replace(
        CONFIG,
        run=replace(CONFIG.run, steps=steps, grace_s=20.0),
        evaluation=replace(CONFIG.evaluation, during_every=during_every, during_pinned=pinned),
    )
