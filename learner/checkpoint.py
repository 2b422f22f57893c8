"""Checkpoints: everything a run needs to go on, at any number of ranks.

A checkpoint is a folder ``step-000040`` with

* ``checkpoint.json``: format version, step, weight version, shape of the model;
* ``ledger.bin``: opaque bytes of the coordinator;
* ``state/``: model, optimizer and random state (torch.distributed.checkpoint);
* ``hf/``: the weights as a plain Hugging Face folder.

It is written as ``step-000040.partial`` and renamed when complete, so a folder without that
suffix is always whole.
"""

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from common.errors import InputError
from learner.model_folder import write_model_folder
from learner.optimizer import PolicyOptimizer
from learner.sharding import Rank, full_state_dict

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raised whenever an older program could not read a newer checkpoint or the reverse."""

_NAME = re.compile(r"step-(\d{6,})")
_PARTIAL = ".partial"
_SHAPE_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
    "rms_norm_eps",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps taken.
        weight_version: version of the weights in the checkpoint.
        ledger: what the coordinator needs to go on; opaque here.
    """

    step: int
    weight_version: int
    ledger: bytes


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: PolicyOptimizer,
    rank: Rank,
    *,
    model_source: Path,
    export_dtype: torch.dtype,
    keep: int,
) -> Path:
    """Write a checkpoint; every rank must call it.

    Args:
        folder: of all checkpoints of the run, on a file system all ranks share.
        progress: read on rank 0 only.
        model: sharded.
        optimizer: of this model.
        rank: this process.
        model_source: Hugging Face folder the model was loaded from.
        export_dtype: type of the weights in ``hf/``.
        keep: newest checkpoints that stay; at least 1.

    Returns:
        The finished folder, on every rank.
    """
    step = _agreed(progress.step)
    final = folder / f"step-{step:06d}"
    partial = final.with_name(final.name + _PARTIAL)
    if rank.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer.adamw)
    state = {"model": weights, "optimizer": moments, "random": torch.get_rng_state()}
    save(state, checkpoint_id=partial / "state")
    exported = full_state_dict(model)
    if rank.is_first:
        write_model_folder(exported, model_source, partial / "hf", export_dtype)
        (partial / "ledger.bin").write_bytes(progress.ledger)
        _write_description(partial, progress, model, optimizer, rank)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(partial, final)
        _prune(folder, keep)
        log.info("checkpoint written path=%s weight_version=%d", final, progress.weight_version)
    dist.barrier()
    return final


def load_checkpoint(
    checkpoint: Path, model: nn.Module, optimizer: PolicyOptimizer, rank: Rank
) -> Progress:
    """Restore model, optimizer and random state in place; every rank must call it.

    The number of ranks may differ from when it was saved.

    Raises:
        InputError: it is no checkpoint, its format version is another, or its model differs.
    """
    description = read_description(checkpoint)
    _compare_models(checkpoint, description["model"], describe_model(model))
    weights, moments = get_state_dict(model, optimizer.adamw)
    state: dict[str, Any] = {
        "model": weights,
        "optimizer": moments,
        "random": torch.get_rng_state(),
    }
    load(state, checkpoint_id=checkpoint / "state")
    set_state_dict(
        model,
        optimizer.adamw,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    torch.set_rng_state(state["random"])
    optimizer.restore_counters(description["optimizer"])
    if rank.is_first:
        log.info("checkpoint loaded path=%s step=%d", checkpoint, description["step"])
    return Progress(
        step=int(description["step"]),
        weight_version=int(description["weight_version"]),
        ledger=(checkpoint / "ledger.bin").read_bytes(),
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The finished checkpoint of the highest step in ``folder``; None if there is none."""
    return max(_finished(folder), key=_step_of, default=None)


def read_description(checkpoint: Path) -> dict[str, Any]:
    """Read ``checkpoint.json`` and check its format version.

    Raises:
        InputError: it is no checkpoint, is unreadable, or of another format version.
    """
    path = checkpoint / "checkpoint.json"
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"'{checkpoint}' is no checkpoint: it has no checkpoint.json") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON: {error}") from error
    found = description.get("format_version")
    if found != FORMAT_VERSION:
        raise InputError(
            f"checkpoint '{checkpoint}' has format version {found}, but this program reads "
            f"version {FORMAT_VERSION}; continue the run with the program that wrote it, or "
            f"start a new one from '{checkpoint / 'hf'}'"
        )
    return description


def describe_model(model: nn.Module) -> dict[str, Any]:
    """What has to agree between a checkpoint and the model that loads it."""
    config = model.config.to_dict()  # type: ignore[union-attr,operator]
    described = {key: config[key] for key in _SHAPE_KEYS if key in config}
    described["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return described


def _compare_models(checkpoint: Path, saved: dict[str, Any], given: dict[str, Any]) -> None:
    differing = [key for key in sorted(saved.keys() | given) if saved.get(key) != given.get(key)]
    if differing:
        listed = ", ".join(
            f"{key} {saved.get(key)!r} saved, {given.get(key)!r} given" for key in differing
        )
        raise InputError(
            f"checkpoint '{checkpoint}' is of another model than model.path: {listed}; give the "
            "model the run was started with"
        )


def _write_description(
    partial: Path, progress: Progress, model: nn.Module, optimizer: PolicyOptimizer, rank: Rank
) -> None:
    description = {
        "format_version": FORMAT_VERSION,
        "step": progress.step,
        "weight_version": progress.weight_version,
        "ranks": rank.count,
        "optimizer": optimizer.counters(),
        "model": describe_model(model),
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (partial / "checkpoint.json").write_text(text, encoding="utf-8")


def _agreed(step: int) -> int:
    """The step of rank 0, on every rank."""
    number = torch.tensor([step])
    dist.broadcast(number, src=0)
    return int(number)


def _prune(folder: Path, keep: int) -> None:
    for old in sorted(_finished(folder), key=_step_of)[:-keep]:
        shutil.rmtree(old)


def _finished(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
