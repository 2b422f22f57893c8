"""A small run with a kept journal: real learner, coordinator, journal; the policy is a script."""

from dataclasses import replace
from pathlib import Path

from common.config import Config
from common.config_file import save_config
from common.telemetry.writers import JsonlWriter
from launch.run.folder import RunFolder, RunState
from tests.integration.learner_life import Life, with_steps
from tests.tiny_text_model import make_text_model

STEPS, EVERY, BATCH = 5, 2, 6
"""Steps of the run, between its checkpoints (2, 4 and 5), and trajectories of each."""


def settings(model: Path, *, keep_journal: bool = True) -> Config:
    """Of the run: two groups of three, every batch of the newest version."""
    config = with_steps(STEPS)
    return replace(
        config,
        run=replace(config.run, keep_journal=keep_journal),
        model=replace(config.model, path=str(model), dtype="float32"),
    )


def make_kept_run(folder: Path, *, keep_journal: bool = True, kept: int = 3) -> RunFolder:
    """Train ``STEPS`` steps in ``folder``, with the newest ``kept`` of its three checkpoints."""
    run = RunFolder(folder / "run")
    run.path.mkdir()
    model = make_text_model(folder / "model")
    config = settings(model, keep_journal=keep_journal)
    save_config(config, run.config)
    life = Life(
        folder=run.path, model_folder=model, config=config, every=EVERY, resume=False, keep=kept,
        keep_journal=keep_journal,
    )  # fmt: skip
    assert life.run()
    writer = JsonlWriter(run.metrics, after_step=0)
    for record in life.records:
        writer.write(record)
    writer.close()
    (run.path / ".lock").touch()
    run.write_state(RunState(status="finished", started_at=0.0))
    return run
