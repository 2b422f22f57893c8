"""A learner that trains nothing: ``python -m tests.faults.learner --plan PLAN --folder RUN``.

Coordinator, journal, replay, ledger, transport and records are the real ones, put together as
``learner.main`` does it; the weights are a number, and every policy server takes it at once.
"""

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.places import LEARNER, RunPlan
from common.plan_file import load_plan, own_keys, tell_coordinator
from common.telemetry.alert_lines import append_alert
from common.telemetry.writers import StepLines
from common.whole_file import write_whole
from common.wire.records import Trajectory
from common.wire.sockets import Wire
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.ledger import journal_position, restore_ledger
from learner.coordination.replay import Replay
from learner.coordination.store import TrajectoryStore
from learner.journal.segments import begin_journal
from learner.journal.writer import JournalWriter
from tests.asked_servers import asked
from tests.faults.schedules import SILENCE_S
from tests.faults.settings import (
    ALERTS,
    CHECKPOINT_EVERY,
    GROUPS,
    RESULT,
    SIZE,
    TASKS,
    VERSION,
    Settings,
    load_settings,
)

WAIT_S = 120.0
SLOW_S = 0.2
"""What a slow disk takes for a commit."""
CHECKPOINTS = "ledger-*.bin"


class SlowableJournal(JournalWriter):
    """The disk takes its time while a file is there."""

    slow: Path

    def _put(self, data: bytes) -> None:
        if self.slow.exists():
            threading.Event().wait(SLOW_S)
        super()._put(data)


class Learner:
    """One life of it."""

    def __init__(self, plan: RunPlan, folder: Path, settings: Settings) -> None:
        """Go on from the newest checkpoint."""
        self._plan, self._folder, self._settings = plan, folder, settings
        self._tell = partial(append_alert, Path(settings.doors) / ALERTS)
        saved = sorted(folder.glob(CHECKPOINTS))
        self._step = int(saved[-1].stem.partition("-")[2]) if saved else 0
        self._ledger = saved[-1].read_bytes() if saved else None
        self._coordinator = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE,
            max_staleness=settings.bound, total_batches=settings.steps,
            max_buffered_bytes=1 << 30, silence_s=SILENCE_S, lease_timeout_s=WAIT_S,
            tell=self._tell,
        )  # fmt: skip

    def live(self) -> None:
        """Train to the end."""
        with self._intake() as (intake, replay, batches):
            while replay.batches:
                self._train(intake, batches, replay.batch(self._step))
            replay.rest()
            self._publish(intake)
            intake.go_live()
            while self._step < self._settings.steps:
                self._wait_for_gate()
                batch = intake.take_batch(learner_version=self._step, timeout_s=WAIT_S)
                assert batch is not None
                self._train(intake, batches, batch)
                self._publish(intake)
            self._write_result(intake.counters())
            intake.drain("done", timeout_s=30)

    def _write_result(self, counters: Counters) -> None:
        result = {
            "started": counters.started, "trained": counters.trained,
            "dropped": dict(counters.dropped), "duplicates": counters.duplicates,
        }  # fmt: skip
        write_whole(self._folder / RESULT, json.dumps(result))

    @contextmanager
    def _intake(self) -> Iterator[tuple[Intake, Replay, StepLines]]:
        since = journal_position(self._ledger) if self._ledger else 0
        journal_folder = self._folder / "journal"
        found = begin_journal(journal_folder, since=since, resume=True, tell=self._tell)
        if self._ledger:
            restore_ledger(self._coordinator, self._ledger)
        replay = Replay(self._coordinator, found.places, serial=since)
        store = TrajectoryStore(self._folder / "trajectories", limit_bytes=1 << 24)
        members = {m.key: m.name for m in self._plan.members if m.role == "actor"}
        journal = SlowableJournal(
            journal_folder, first_serial=found.next_serial, earlier=found.segments, keep=True,
            tell=self._tell,
        )  # fmt: skip
        journal.slow = self._settings.slow
        doors = Path(self._settings.doors)
        servers = [
            replace(place, address=replace(place.address, bind=str(doors / place.name)))
            for place in self._plan.servers
        ]
        with (
            Wire(own_keys(self._plan, LEARNER)) as wire,
            closing(StepLines(self._folder / "batches.jsonl", after_step=self._step)) as batches,
            journal,
            Intake(
                self._coordinator, store,
                wire.listen("coordinator", self._plan.coordinator, members, ACTOR_LIMITS),
                version=self._step, journal=journal, replay=replay, membership=asked(servers),
                tell=self._tell,
            ) as intake,
        ):  # fmt: skip
            coming = replace(self._plan.coordinator, bind=str(doors / "coordinator"))
            tell_coordinator(self._plan, coming)
            yield intake, replay, batches

    def _train(self, intake: Intake, batches: StepLines, batch: list[Trajectory]) -> None:
        self._step += 1
        names = [trajectory.trajectory_id for trajectory in batch]
        batches.append({"step": self._step, "trajectories": names})
        if self._step % CHECKPOINT_EVERY == 0:
            self._save(intake.ledger(step=self._step))

    def _save(self, ledger: bytes) -> None:
        """A checkpoint; one that finds no room is told of, and the next one tried."""
        path = self._folder / CHECKPOINTS.replace("*", f"{self._step:06d}")
        partial_path = path.with_suffix(".partial")
        try:
            partial_path.write_bytes(ledger)
            partial_path.replace(path)
        except OSError as error:
            self._tell(f"no checkpoint of step {self._step}: {error}")
            partial_path.unlink(missing_ok=True)

    def _publish(self, intake: Intake) -> None:
        write_whole(Path(self._plan.private) / VERSION, str(self._step))
        intake.acknowledge(self._step)

    def _wait_for_gate(self) -> None:
        closed = threading.Event()
        while int(self._settings.gate.read_text()) <= self._step:
            closed.wait(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--plan", "--folder"):
        parser.add_argument(option, type=Path, required=True)
    given = parser.parse_args()
    Learner(load_plan(given.plan), given.folder, load_settings(given.folder)).live()
