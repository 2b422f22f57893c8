"""What metrics, panel, summary and report say is what the trajectory store says when recounted."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from common.config import Config
from common.telemetry.process_totals import read_learner_totals, write_totals
from common.telemetry.step_record import StepRecord
from common.telemetry.writers import JsonlWriter
from common.wire.records import Outcome, Task, TaskLease, Trajectory
from launch.report.metrics_tail import read_metrics
from launch.report.page import write_report
from launch.report.summary import Summary, build_summary
from launch.report.training_view import Training
from launch.run.folder import RunFolder, RunState
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import shard
from learner.head import Head
from learner.loop import TrainingLoop
from learner.record import BatchLog
from learner.step.train_step import TrainStep
from learner.totals import Totals, learner_totals
from learner.weights.background import BackgroundPublisher
from tests.integration.test_synchronous_training import (
    CONFIG,
    NO_SAVING,
    NoVerifier,
    Servers,
    answering,
    scripted,
)
from tests.tiny_policy import VOCABULARY, make_model
from tests.wires import a_place

STEPS, GROUPS, SIZE = 6, 2, 3
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]
RUN = replace(
    CONFIG,
    run=replace(CONFIG.run, steps=STEPS),
    learner=replace(CONFIG.learner, max_staleness=2),
)


def unreliable(lease: TaskLease, version: int) -> Trajectory:
    """What ``scripted`` does, but some episodes are lost, and some lag behind."""
    rng = random.Random(lease.lease_id)
    trajectory = scripted(lease, max(0, version - rng.randrange(2)))
    trajectory = replace(trajectory, task_id=lease.task.task_id, purpose=lease.purpose)
    if rng.random() < 0.2:
        return replace(
            trajectory, outcome=Outcome.INFRASTRUCTURE, failure="KernelError: it died", segments=(),
            steps=(), step_rewards=trajectory.step_rewards[:0], scores={},
        )  # fmt: skip
    return trajectory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    train(folder, RUN)
    return folder


def train(folder: RunFolder, config: Config, heldout: Sequence[Task] = ()) -> None:
    """A run of the real learner over a real socket, with a scripted actor."""
    make_model(folder.path)
    servers = Servers(seconds_paused=0.5)
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE, max_staleness=2,
        total_batches=config.run.steps, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    with ExitStack() as stack:
        rank = stack.enter_context(training_processes())
        store = TrajectoryStore(folder.path / "trajectories", limit_bytes=1 << 24)
        place = stack.enter_context(a_place(["a0"]))
        intake = stack.enter_context(Intake(coordinator, store, place.door))
        publisher = stack.enter_context(
            BackgroundPublisher(servers, acknowledge=intake.acknowledge)
        )
        actor = stack.enter_context(answering(place, servers, unreliable))
        writer = JsonlWriter(folder.metrics, after_step=0)
        batches = BatchLog(folder.path / "batches.jsonl", after_step=0)
        stack.callback(writer.close)
        stack.callback(batches.close)
        head = Head(
            wire=place.wire,
            intake=intake, publisher=publisher, heldout=heldout, writers=(writer,),
            batches=batches, family_of=lambda trajectory: family(trajectory.task_id),
        )  # fmt: skip
        model = shard(load_model(folder.path), rank, compute_dtype=torch.float32)
        step = TrainStep(
            model, PolicyOptimizer(model, config.learner), rank, config=config.learner,
            objective=config.objective, temperature=1.0,
        )  # fmt: skip
        learner = TrainingLoop(
            config, model=model, vocabulary=VOCABULARY, train_step=step,
            verifier=NoVerifier(), saving=NO_SAVING, head=head, first_step=0, totals=Totals(),
        )  # fmt: skip
        learner.run()
        left = learner_totals(config, learner.totals, head.intake.counters())
        write_totals(left, folder.learner_totals)
        intake.drain("done", timeout_s=10)
        actor.join(timeout=10)


def family(task_id: str) -> str:
    return "odd" if int(task_id[1:]) % 2 else "even"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def stored(run: RunFolder) -> dict[str, dict[str, Any]]:
    """The trajectory store by id."""
    parts = sorted((run.path / "trajectories").glob("part-*.jsonl"))
    return {record["trajectory_id"]: record for part in parts for record in lines(part)}


@pytest.fixture
def batches(run: RunFolder, stored: dict[str, dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What each step was trained on, out of the store."""
    return [
        [stored[name] for name in line["trajectories"]]
        for line in lines(run.path / "batches.jsonl")
    ]


@pytest.fixture
def metrics(run: RunFolder) -> list[StepRecord]:
    return read_metrics(run.metrics)


@pytest.fixture
def summary(run: RunFolder) -> Summary:
    state = RunState(status="running", started_at=0.0, seconds={"total": 1.0})
    return build_summary(run, RUN, state)


def ages(batch: list[dict[str, Any]], step: int) -> Counter[str]:
    return Counter(str(step - 1 - version) for record in batch for version in record["versions"])


def test_every_record_is_that_of_its_batch(
    metrics: list[StepRecord], batches: list[list[dict[str, Any]]]
) -> None:
    assert len(metrics) == len(batches) == STEPS
    for record, batch in zip(metrics, batches, strict=True):
        right = [entry["scores"]["exact_match"] for entry in batch]
        by_family = {
            name: [e["scores"]["exact_match"] for e in batch if family(e["task_id"]) == name]
            for name in {family(entry["task_id"]) for entry in batch}
        }
        assert record.trajectories == len(batch)
        assert record.exact_match == pytest.approx(fmean(right))
        assert record.reward == pytest.approx(fmean(sum(e["step_rewards"]) for e in batch))
        assert record.family_success == pytest.approx(
            {name: fmean(scores) for name, scores in by_family.items()}
        )
        assert record.staleness == dict(ages(batch, record.step))
        assert record.steps_per_trajectory == pytest.approx(fmean(len(e["steps"]) for e in batch))


def test_rates_and_times_are_of_their_step_and_add_up_to_the_run(
    metrics: list[StepRecord],
) -> None:
    assert sum(record.step_s for record in metrics) == pytest.approx(metrics[-1].seconds)
    for record in metrics:
        assert record.step_s >= record.wait_s + record.train_s
        assert record.trajectories_per_s * record.step_s == pytest.approx(record.trajectories)
        assert record.trajectories_per_s_mean * record.seconds == pytest.approx(
            record.trajectories_trained
        )
    trained = [record.trajectories_trained for record in metrics]
    assert trained == [sum(r.trajectories for r in metrics[: i + 1]) for i in range(STEPS)]


def test_the_summary_counts_what_the_store_holds(
    run: RunFolder,
    summary: Summary,
    stored: dict[str, dict[str, Any]],
    batches: list[list[dict[str, Any]]],
    metrics: list[StepRecord],
) -> None:
    counts = summary.trajectories
    lost = [record for record in stored.values() if record["outcome"] == "infrastructure"]
    histogram = sum((ages(b, step) for step, b in enumerate(batches, 1)), Counter[str]())

    assert lost, "the script loses some"
    assert (
        counts.trained == sum(len(batch) for batch in batches) == metrics[-1].trajectories_trained
    )
    assert counts.started == counts.trained + sum(counts.dropped.values()) + counts.open
    assert counts.dropped["infrastructure:KernelError"] == len(lost)
    assert counts.finished == len(stored) - len(lost)
    assert summary.staleness.histogram == dict(histogram)
    assert summary.staleness.max == max(int(age) for age in histogram) > 0
    assert summary.staleness.mean == pytest.approx(
        sum(int(age) * n for age, n in histogram.items()) / histogram.total()
    )
    assert summary.weight_versions == STEPS + 1
    totals = read_learner_totals(run.learner_totals)
    assert totals.paused_seconds == pytest.approx(0.5 * (STEPS + 1)), "each publish once"
    assert summary.wall_seconds.rl == pytest.approx(metrics[-1].seconds, rel=0.5)


def test_panel_and_report_show_the_same(
    run: RunFolder, summary: Summary, metrics: list[StepRecord]
) -> None:
    training = Training(STEPS)
    training.add(metrics)
    view = training.view()

    write_report(run, RUN, summary)

    assert view is not None
    assert view.dropped == sum(metrics[-1].dropped.values())
    assert view.staleness_max == summary.staleness.max
    assert view.staleness_mean == pytest.approx(summary.staleness.mean)
    assert view.trajectories_per_s == pytest.approx(
        summary.trajectories.trained / metrics[-1].seconds
    )
    page = run.report.read_text()
    assert f"{summary.trajectories.trained} of {summary.trajectories.started}" in page
    assert (
        f"infrastructure:KernelError {summary.trajectories.dropped['infrastructure:KernelError']}"
        in page
    )
