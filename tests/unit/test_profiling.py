"""Traces cover the packs they promise, and nothing happens where none is wanted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.plan.topology import RunFiles, members, plan_run
from launch.run.train import TrainRequest, resolve_config
from learner.profiling import StepProfiler, profiled_steps, trace_packs


def run_packs(model: nn.Module, packs: int) -> None:
    for _ in range(packs):
        model(torch.ones(2, 3)).sum().backward()
    torch.full((7,), 2.0).erfinv_()


def names_in(path: Path) -> list[str]:
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return [event["name"] for event in events if event.get("ph") == "X"]


def test_steps_without_a_trace_leave_nothing_behind(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    profiler = StepProfiler(model, tmp_path / "profiles", steps=())

    with profiler.step(3):
        run_packs(model, 2)

    assert not (tmp_path / "profiles").exists()
    assert not model._forward_pre_hooks


def test_a_chosen_step_is_traced_to_its_end_pack_by_pack(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    profiler = StepProfiler(model, tmp_path / "profiles", steps=range(3, 4))

    for step in range(5):
        with profiler.step(step):
            run_packs(model, 2)

    (path,) = (tmp_path / "profiles").iterdir()
    names = names_in(path)
    assert path.name == "step-000003-rank0.json"
    assert [name for name in names if name.startswith("pack")] == ["pack 0", "pack 1"]
    assert names.count("aten::linear") == 2
    assert "aten::erfinv_" in names
    assert not model._forward_pre_hooks


def test_only_the_first_packs_of_a_long_step_are_traced(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)

    with trace_packs(model, tmp_path / "trace.json", most_packs=2):
        run_packs(model, 5)

    names = names_in(tmp_path / "trace.json")
    assert names.count("aten::linear") == 2
    assert any("Backward" in name for name in names)
    assert "aten::erfinv_" not in names


def test_a_step_that_fails_leaves_no_trace_and_no_running_profiler(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)

    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        trace_packs(model, tmp_path / "trace.json"),
    ):
        model(torch.ones(2, 5))
    with trace_packs(model, tmp_path / "next.json"):
        run_packs(model, 1)

    assert [path.name for path in tmp_path.iterdir()] == ["next.json"]


@pytest.mark.parametrize(
    ("first", "last", "count", "expected"),
    [
        (0, 40, 2, [2, 3]),
        (10, 40, 2, [12, 13]),
        (0, 3, 2, [1, 2]),
        (0, 2, 5, [0, 1]),
        (0, 40, 0, []),
    ],
)
def test_first_steps_are_skipped_where_there_are_others(
    first: int, last: int, count: int, expected: list[int]
) -> None:
    assert list(profiled_steps(first, last, count)) == expected


@pytest.mark.parametrize(("profile", "option"), [(False, []), (True, ["--profile-steps", "2"])])
def test_one_flag_asks_the_learner_for_traces_of_two_steps(
    tmp_path: Path, profile: bool, option: list[str]
) -> None:
    preset = Path(__file__).parents[2] / "launch" / "presets" / "quickstart.toml"
    config = resolve_config(TrainRequest(config=preset, profile=profile))

    files = RunFiles(config=tmp_path / "config.json", private=tmp_path)
    keys = dict.fromkeys(members(config), "key")

    processes = plan_run(config, files, keys).processes
    (command,) = (each.command for each in processes if each.role == "learner")

    assert list(command[-2:]) == (option or ["--plan", str(files.plan)])
