"""Chaos, small: a run whose processes are killed every few seconds finishes, and says who was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_end_to_end import REPOSITORY, SMALL

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

SETTINGS = (
    *(setting for setting in SMALL if not setting.startswith("run.steps")),
    "evaluation.during_every=0",
    "transport.silence_s=10",
)


def test_both_runs_finish_and_every_kill_is_recovered_from(tmp_path: Path) -> None:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [
        *(sys.executable, "-m", "benchmarks.chaos", "--seeds", "1", "--every", "5"),
        *("--steps", "16", "--points", "100", "--folder", str(tmp_path)),
        *("--json", str(tmp_path / "chaos.json"), *words),
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1500
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "chaos.json").read_text())["figures"]
    assert figures["kills"] == figures["recoveries"] > 0
    for name in ("chaos-1", "chaos-1-undisturbed"):
        state = json.loads((tmp_path / name / "state.json").read_text())
        assert state["status"] == "finished"
    batches = (tmp_path / "chaos-1" / "batches.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in batches] == list(range(1, 17))
