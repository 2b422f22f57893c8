"""One configuration at work on the batches of a journal."""

from collections.abc import Sequence
from pathlib import Path

import torch

from common.config import Config
from common.telemetry.step_record import StepRecord
from common.telemetry.writers import JsonlWriter
from common.wire.records import Trajectory
from learner.checkpoints.model_folder import write_model_folder
from learner.checkpoints.resume import load_checkpoint
from learner.coordination.counters import Counters
from learner.engine.mesh import Rank
from learner.engine.sharding import full_state_dict, seed_everything
from learner.record import StepTimings, step_record
from learner.trained import Trained, load_trained, train_step

NO_TIME = StepTimings(
    seconds=0.0, step_s=0.0, wait_s=0.0, train_s=0.0, publish_s=0.0, paused_s=0.0
)  # fmt: skip
"""A replay says nothing of how long anything took."""


class Retraining:
    """A model, its optimizer and its step; on every rank."""

    def __init__(self, config: Config, rank: Rank, *, checkpoint: Path | None) -> None:
        """Load the initial weights, or the state of a checkpoint; every rank must call it.

        Raises:
            LZeroError: they cannot be loaded.
        """
        seed_everything(config.run.seed)
        self.trained: Trained = load_trained(config, rank)
        if checkpoint is not None:
            load_checkpoint(
                checkpoint,
                self.trained.model,
                self.trained.optimizer,
                rank,
                model_source=Path(config.model.path),
                others=self.trained.beside,
            )
        self.records: list[StepRecord] = []
        """Of the steps done, on rank 0."""
        self._config, self._rank = config, rank
        self._step = train_step(config, self.trained, rank)

    def step(
        self, batch: Sequence[Trajectory] | None, counters: Counters | None, *, version: int
    ) -> None:
        """Train the weights of ``version``; batch and counters on rank 0, every rank calls it."""
        metrics = self._step.run(batch, version=version)
        if metrics is not None and batch is not None and counters is not None:
            self.records.append(
                step_record(
                    version + 1,
                    batch,
                    metrics,
                    NO_TIME,
                    counters=counters,
                    family_of=lambda trajectory: "all",
                )
            )

    def write(self, out: Path) -> None:
        """Leave ``metrics.jsonl`` and the weights as a model folder ``hf``; every rank calls it."""
        state = full_state_dict(self.trained.model)
        if not self._rank.is_first:
            return
        out.mkdir(parents=True, exist_ok=True)
        writer = JsonlWriter(out / "metrics.jsonl", after_step=0)
        for record in self.records:
            writer.write(record)
        writer.close()
        dtype = getattr(torch, self._config.model.compute_dtype)
        write_model_folder(state, Path(self._config.model.path), out / "hf", dtype)
