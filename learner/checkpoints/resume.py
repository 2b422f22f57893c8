"""Goes on from a checkpoint; ``learner.checkpoints.checkpointer`` saves them beside training."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.errors import InputError
from learner.checkpoints.digests import digest_of
from learner.checkpoints.files import (
    LEDGER,
    MODEL,
    STATE,
    DamagedCheckpointError,
    find_damage,
    finished_checkpoints,
    read_description,
    read_manifest,
    set_aside,
)
from learner.checkpoints.shard_files import TensorFolder
from learner.checkpoints.state import (
    Progress,
    Trainee,
    Trainer,
    apply,
    describe_model,
    live_state,
    random_state,
    read_into,
    restore,
)
from learner.engine.agreement import gather_texts
from learner.engine.mesh import Rank

log = logging.getLogger(__name__)

_TOKENIZER = "tokenizer.json"


def load_newest(
    folder: Path,
    model: nn.Module,
    optimizer: Trainer,
    rank: Rank,
    *,
    model_source: Path | None = None,
    others: Mapping[str, Trainee] | None = None,
) -> Progress | None:
    """Restore the newest checkpoint that is as it was written; every rank must call it.

    A damaged one is set aside under another name, with a warning that says which file is wrong,
    and the one before it is taken.

    Returns:
        Where the run stands; None if there is no checkpoint at all.

    Raises:
        InputError: all checkpoints are damaged, or the newest whole one does not belong here.
    """
    damages: dict[Path, DamagedCheckpointError] = {}
    for checkpoint in finished_checkpoints(folder):
        try:
            progress = load_checkpoint(
                checkpoint, model, optimizer, rank, model_source=model_source, others=others
            )
        except DamagedCheckpointError as damage:
            damages[checkpoint] = damage
            continue
        for damaged, fault in damages.items():
            if rank.is_first:
                log.warning("%s; it is set aside as '%s'", fault, set_aside(damaged))
        return progress
    if damages:
        raise InputError(
            f"none of the {len(damages)} checkpoints in '{folder}' can be used: "
            f"{'; '.join(map(str, damages.values()))}; begin a new run"
        )
    return None


def load_checkpoint(
    checkpoint: Path,
    model: nn.Module,
    optimizer: Trainer,
    rank: Rank,
    *,
    model_source: Path | None = None,
    others: Mapping[str, Trainee] | None = None,
) -> Progress:
    """Restore model, optimizer and random state in place; every rank must call it.

    The number of ranks may differ from when it was saved. Sizes and checksums of all files are
    looked at first, shared among the ranks.

    Args:
        checkpoint: a folder ``step-000040``.
        model: of the same shape as the saved one, sharded in any way.
        optimizer: of this model.
        rank: this process.
        model_source: folder the model was loaded from, to see that its tokenizer is the same.
        others: models trained beside it, by the names they were saved under.

    Raises:
        InputError: it is no checkpoint, its format version is another, or its model,
            tokenizer or optimizer differs.
        DamagedCheckpointError: a file is not as it was written. All ranks raise it alike.
    """
    description = _examine(checkpoint, rank)
    _compare_models(checkpoint, description["model"], describe_model(model))
    if model_source is not None:
        _compare_tokenizers(checkpoint, model_source)
    files = TensorFolder(checkpoint / STATE)
    _restore_one(files, model, optimizer, description["optimizer"])
    for name, other in (others or {}).items():
        counters = description["others"].get(name)
        if counters is None:
            raise InputError(f"checkpoint '{checkpoint}' holds no {name}; it was trained without")
        _restore_one(files, other.model, other.trainer, counters, prefix=f"{name}.")
    _restore_random(files)
    if rank.is_first:
        log.info("checkpoint loaded path=%s step=%d", checkpoint, description["step"])
    return Progress(
        step=int(description["step"]),
        weight_version=int(description["weight_version"]),
        ledger=(checkpoint / LEDGER).read_bytes(),
    )


def _restore_one(
    files: TensorFolder,
    model: nn.Module,
    trainer: Trainer,
    counters: dict[str, Any],
    *,
    prefix: str = "",
) -> None:
    state = live_state(model, trainer.parts, prefix=prefix)
    restore(state, files)
    apply(state, model, trainer.parts)
    trainer.restore_counters(counters)


def _restore_random(files: TensorFolder) -> None:
    saved = set(files.names())
    for name, state in random_state().items():
        if name in saved:
            read_into(name, state, files)
            (torch.set_rng_state if name == "random.cpu" else torch.cuda.set_rng_state)(state)


def _examine(checkpoint: Path, rank: Rank) -> dict[str, Any]:
    """The description of a checkpoint that every rank found to be whole."""
    began = time.monotonic()
    description: dict[str, Any] = {}
    refusal, faults = "", []
    try:
        description = read_description(checkpoint)
        faults = find_damage(checkpoint, share=rank.index, shares=rank.count)
    except DamagedCheckpointError as error:
        faults = [str(error)]
    except InputError as error:
        refusal = str(error)
    reports = [json.loads(text) for text in gather_texts(json.dumps([refusal, faults]))]
    for other_refusal, _ in reports:
        if other_refusal:
            raise InputError(other_refusal)
    everything = list(dict.fromkeys(fault for _, faults in reports for fault in faults))
    if everything:
        raise DamagedCheckpointError(
            f"checkpoint '{checkpoint}' is damaged: {'; '.join(everything)}"
        )
    if rank.is_first:
        size = sum(digest.num_bytes for digest in read_manifest(checkpoint).values())
        log.info(
            "checkpoint verified path=%s gib=%.2f seconds=%.1f",
            checkpoint, size / (1 << 30), time.monotonic() - began,
        )  # fmt: skip
    return description


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


def _compare_tokenizers(checkpoint: Path, model_source: Path) -> None:
    saved = read_manifest(checkpoint).get(f"{MODEL}/{_TOKENIZER}")
    given = model_source / _TOKENIZER
    if saved is not None and given.is_file() and digest_of(given) != saved:
        raise InputError(
            f"'{given}' is another tokenizer than the one in checkpoint '{checkpoint}'; give the "
            "model folder the run was started with"
        )
