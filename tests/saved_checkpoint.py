"""Saves a checkpoint and waits for it; finds the last one."""

from pathlib import Path

import torch
from torch import nn

from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import finished_checkpoints
from learner.checkpoints.state import Progress, Trainer
from learner.engine.mesh import Rank


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: Trainer,
    rank: Rank,
    *,
    model_source: Path,
    export_dtype: torch.dtype,
    keep: int,
) -> Path:
    """Every rank calls it; the finished folder, on every rank."""
    with Checkpointer(
        folder, model, optimizer, rank,
        model_source=model_source, export_dtype=export_dtype, keep=keep, background=False,
    ) as checkpointer:  # fmt: skip
        return checkpointer.save(progress)


def latest_checkpoint(folder: Path) -> Path | None:
    """The finished checkpoint of the highest step in ``folder``; None if there is none."""
    return next(iter(finished_checkpoints(folder)), None)
