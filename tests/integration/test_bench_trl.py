"""Both sides of the benchmark beside TRL train a small model, and the report says how."""

import math
from pathlib import Path

import pytest

from benchmarks.bench_trl import measure
from benchmarks.trl.questions import digit_tasks
from benchmarks.trl.random_model import write_random_model
from benchmarks.trl.work import Work
from common.tasks import write_tasks

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

COMPARED = {"trajectories_per_s", "train_s", "start_s", "success_at_first", "s_to_equal_success"}


def test_both_sides_take_two_steps_and_are_compared(tmp_path: Path) -> None:
    write_tasks(digit_tasks(50), tmp_path / "tasks.jsonl")
    work = Work(
        model=str(write_random_model(tmp_path / "model")), tasks=str(tmp_path / "tasks.jsonl"),
        steps=2, groups=2, group_size=4, action_tokens=24, learning_rate=1e-3, max_staleness=1,
        cores=2,
    )  # fmt: skip

    report = measure(work, rounds=1, folder=tmp_path, say=lambda _: None)

    figures = report.figures
    for side in ("ours", "trl"):
        values = [figures[f"{side}_{name}"] for name in COMPARED]
        assert all(value is not None and math.isfinite(value) for value in values)
        assert 0 < (figures[f"{side}_success_at_first"] or 0) < 1
    assert report.ratios["vs_trl"] == pytest.approx(
        figures["ours_trajectories_per_s"] / figures["trl_trajectories_per_s"]
    )
    assert (figures["trl_processes"], figures["trl_staleness_max"]) == (1, 0)
    assert figures["ours_processes"] >= 4
    assert figures["ours_staleness_max"] <= 1
