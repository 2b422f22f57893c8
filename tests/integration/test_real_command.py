"""``lzero real`` from a model of one's own to the report, cut off four times on the way."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.real.recipe import recipe_file
from launch.real.run import DEFAULT_PRESET
from launch.run.folder import newest_checkpoint

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

DEADLINE_S = 400.0
STOP_S = 10.0
SMALL = (
    "run.steps=3", "world.train_tasks=100", "learner.groups=2", "learner.group_size=4",
    "learner.checkpoint_every=1", "learner.learning_rate=5e-4", "actors.episodes=8",
    "evaluation.per_family=2", "evaluation.greedy_per_family=1", "evaluation.control=1",
    "evaluation.during_every=0",
)  # fmt: skip
RECIPE = """
[untouched]
per_family = 1
max_action_tokens = 16

[traces]
count = 640

[sft]
optimizer = "adamw"
adamw_learning_rate = 1e-4
batch = 8
checkpoint_every = 5
checkpoints_kept = 1
log_every = 1
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """On a copy of the shipped tiny model that takes the shipped prompt, too."""
    model = tmp_path / "model"
    shutil.copytree(DEFAULT_PRESET.parent / "warmstart", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    preset = tmp_path / "mine.toml"
    shutil.copy(DEFAULT_PRESET, preset)
    recipe = recipe_file(preset)
    recipe.parent.mkdir()
    package = recipe_file(DEFAULT_PRESET).read_text().partition("[untouched]")[0]
    recipe.write_text(package + RECIPE)
    settings = [f"run.folder={tmp_path / 'runs'}", *SMALL]
    return [
        *(sys.executable, "-m", "launch.cli", "real", str(preset), "--name", "mine"),
        *("--model", str(model)),
        *(word for setting in settings for word in ("--set", setting)),
    ]


def interrupt_when(command: list[str], holds: Callable[[], bool]) -> str:
    """Start it, send Ctrl-C once ``holds`` does, and see it end soon; what it printed."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=STOP_S)
    assert process.returncode == 130, printed
    return printed


def test_it_goes_on_where_it_was_cut_off_and_reports_all_three_points(
    command: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    prepared = run / "prepared"
    checkpoints = prepared / "warm-start-checkpoints"

    for holds in (
        lambda: finished_stages(prepared) == 1,
        lambda: finished_stages(prepared) == 2,
        lambda: newest_checkpoint(checkpoints) is not None,
    ):
        assert "go on with: lzero real" in interrupt_when(command, holds)
    traces = (prepared / "traces.jsonl").stat().st_mtime_ns
    asked = (prepared / "untouched").stat().st_mtime_ns
    printed = interrupt_when(command, lambda: newest_checkpoint(run / "checkpoints") is not None)
    assert "go on with: lzero real" in printed
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("done before") == 5
    assert (prepared / "traces.jsonl").stat().st_mtime_ns == traces
    assert (prepared / "untouched").stat().st_mtime_ns == asked
    assert first_step_after_the_cut(prepared / "warm-start.sft.log") > 5
    assert not checkpoints.exists()
    check_the_report(run)
    again = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert again.returncode == 2
    assert "already finished and is not overwritten" in again.stderr


def finished_stages(prepared: Path) -> int:
    stages = prepared / "stages.json"
    return stages.read_text().count('"finished": true') if stages.is_file() else 0


def check_the_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["untouched"]) == {"one_hop", "two_hop"}
    assert set(summary["strategies"]) == {"untouched", "before", "after"}
    assert summary["wall_seconds"]["warm_start"] > 0
    assert "import and check it" in summary["wall_seconds"]["phases"]
    page = (run / "report.html").read_text()
    assert "From the model as it came to what it learned" in page
    assert "wordings never trained on" in page


def first_step_after_the_cut(log: Path) -> int:
    """Steps of the fine-tuning that were told after it was begun for the second time."""
    again = log.read_text().rpartition("read traces")[2]
    (first, *_) = re.findall(r"trained step=(\d+)", again)
    return int(first)
