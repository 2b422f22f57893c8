"""Metrics reach Weights & Biases when a run asks for it; offline needs no network."""

from pathlib import Path

import pytest
import wandb

from common.config import Run
from common.telemetry.step_record import StepRecord
from common.telemetry.writers import metric_writers, wandb_id

RECORD = StepRecord(
    step=1,
    weight_version=1,
    seconds=1.0,
    trajectories_trained=8,
    trajectories_per_s=8.0,
    reward=0.5,
    exact_match=0.5,
    family_success={"one_hop": 0.5},
    staleness={"0": 8},
    dropped={},
    loss=0.1,
    grad_norm=0.2,
    learning_rate=1e-3,
    skipped=False,
    effective_sample_share=1.0,
    masked={"veto": 0.0},
    k3=0.0,
    mismatch_mean=0.0,
    mismatch_max=0.0,
    mismatch_tokens=1,
    action_tokens=8,
    packed_tokens=16,
    steps_per_trajectory=2.0,
    wait_s=0.1,
    train_s=0.1,
    publish_s=0.1,
    paused_s=0.1,
)


@pytest.mark.filterwarnings("ignore")
def test_an_offline_wandb_run_is_written_beside_the_json_lines(tmp_path: Path) -> None:
    run = Run(name="trial: a;b,c#d?e'f", wandb="offline")

    writers = metric_writers(run, tmp_path, {"run": {"name": "trial"}}, after_step=0)
    for writer in writers:
        writer.write(RECORD)
        writer.close()
    wandb.teardown()  # its service writes the file after the run has finished

    (logged,) = tmp_path.glob(f"wandb/offline-run-*/*{wandb_id(tmp_path)}.wandb")
    assert b"family_success/one_hop" in logged.read_bytes()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
