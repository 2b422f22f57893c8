"""Supervised fine-tuning on traces, with the model, packing and sharding of the learner.

    python -m learner.sft.main --model FOLDER --traces FILE --output FOLDER
    torchrun --nproc-per-node 2 -m learner.sft.main --config FILE

The loss is cross-entropy, weight 1 on the tokens of actions and less on the rest, divided by a
constant instead of the batch's tokens, so that a short trace does not count more than a long one.
Batches follow from the seed, so a checkpoint need not keep more than how many were taken.
"""

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from common.errors import InputError, LZeroError
from common.telemetry.log_lines import configure_logging
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.digests import digest_of
from learner.checkpoints.files import finished_checkpoints
from learner.checkpoints.model_folder import write_model_folder
from learner.checkpoints.resume import load_newest
from learner.checkpoints.state import Progress
from learner.engine.activation import checkpoint_activations
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import token_logprobs
from learner.engine.policy import load_sharded
from learner.engine.sharding import full_state_dict, seed_everything
from learner.engine.tokenizer import TOKENIZER, load_tokenizer
from learner.failures import named
from learner.packs.packing import PackableSegment, pack_for_ranks
from learner.sft.config import Sft, add_options, config_from_options
from learner.sft.loss import cross_entropy
from learner.sft.optimizer import SftOptimizer
from learner.sft.traces import chat_template, read_traces

log = logging.getLogger("learner.sft.main")

_SAME_ON_RESUME = (
    "epochs",
    "batch",
    "seed",
    "context_weight",
    "normaliser",
    "optimizer",
    "muon_learning_rate",
    "adamw_learning_rate",
    "warmup_steps",
    "final_share",
    "grad_clip",
)


def train(
    model: nn.Module,
    optimizer: SftOptimizer,
    batches: Sequence[list[PackableSegment]],
    config: Sft,
    rank: Rank,
    checkpointer: Checkpointer | None = None,
    *,
    ledger: bytes = b"",
) -> float:
    """Take the steps that ``optimizer`` has not taken, in place.

    Args:
        model: sharded.
        optimizer: of the model.
        batches: one per step, from the first.
        config: of the run.
        rank: this process.
        checkpointer: keeps checkpoints, if any are wanted.
        ledger: what identifies the run in a checkpoint.

    Returns:
        The mean loss of the last steps; NaN if there were none to take.
    """
    losses: list[float] = []
    began = time.monotonic()
    for batch in batches[optimizer.taken :]:
        losses.append(_step(model, batch, optimizer, config, rank))
        step = optimizer.taken
        if rank.is_first and step % config.log_every == 0:
            recent = losses[-config.log_every :]
            log.info(
                "trained step=%d of=%d loss=%.4f seconds=%.0f",
                step, len(batches), sum(recent) / len(recent), time.monotonic() - began,
            )  # fmt: skip
        if checkpointer is not None and (step % config.checkpoint_every == 0):
            checkpointer.save(Progress(step=step, weight_version=step, ledger=ledger))
    recent = losses[-config.log_every :]
    return sum(recent) / len(recent) if recent else float("nan")


def make_batches(examples: Sequence[PackableSegment], config: Sft) -> list[list[PackableSegment]]:
    """The batches of all epochs, in an order that depends on the seed only."""
    batches = []
    for epoch in range(config.epochs):
        order = list(range(len(examples)))
        random.Random(f"sft:{config.seed}:{epoch}").shuffle(order)
        for start in range(0, len(order), config.batch):
            batches.append([examples[i] for i in order[start : start + config.batch]])
    return batches


def _step(
    model: nn.Module,
    batch: list[PackableSegment],
    optimizer: SftOptimizer,
    config: Sft,
    rank: Rank,
) -> float:
    packs = pack_for_ranks(batch, budget=config.pack_tokens, ranks=rank.count)[rank.index]
    # FSDP averages gradients over ranks, so a rank's share of the sum is scaled up before.
    divisor = config.normaliser * config.batch / rank.count
    total = 0.0
    for pack in packs:
        pack = pack.to(rank.device)
        loss = cross_entropy(token_logprobs(model, pack), pack.weights, total_weight=divisor)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    optimizer.step()
    everyone = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(everyone)
    return float(everyone) / rank.count


def run(config: Sft) -> None:
    """Train ``config.model`` on ``config.traces`` and write ``config.output``.

    Raises:
        LZeroError: the input cannot be used, or training broke down.
    """
    torch.set_num_threads(max(1, config.threads))
    seed_everything(config.seed)
    source = Path(config.model)
    _check_checkpoints(config)
    with training_processes() as rank:
        # Who starts the ranks has chosen; float32 where nobody has.
        kind = "float32" if config.compute_dtype == "auto" else config.compute_dtype
        model = load_sharded(source, rank, compute_dtype=getattr(torch, kind))
        checkpoint_activations(model, config.activation_checkpointing)
        batches = make_batches(_read(config, source), config)
        optimizer = SftOptimizer(model, config, steps=len(batches))
        identity = _identity(config)
        if config.resume:
            _resume(config, model, optimizer, rank, identity)
        with _checkpointer(config, model, optimizer, rank) as checkpointer:
            loss = train(model, optimizer, batches, config, rank, checkpointer, ledger=identity)
        state = full_state_dict(model)
        if rank.is_first:
            dtype = getattr(torch, config.save_dtype)
            write_model_folder(state, source, Path(config.output), dtype)
            log.info("wrote model path=%s loss=%.4f", config.output, loss)


def _read(config: Sft, source: Path) -> list[PackableSegment]:
    tokenizer = load_tokenizer(source / TOKENIZER)
    examples = read_traces(
        Path(config.traces),
        tokenizer,
        config.context_weight,
        render=chat_template(source),
        max_tokens=config.pack_tokens,
    )
    tokens = sum(len(example) for example in examples)
    log.info("read traces path=%s count=%d tokens=%d", config.traces, len(examples), tokens)
    return examples


def _checkpointer(
    config: Sft, model: nn.Module, optimizer: SftOptimizer, rank: Rank
) -> "Checkpointer | nullcontext[None]":
    if not config.checkpoint_every:
        return nullcontext()
    return Checkpointer(
        config.checkpoint_folder,
        model,
        optimizer,
        rank,
        model_source=Path(config.model),
        export_dtype=getattr(torch, config.save_dtype),
        keep=config.checkpoints_kept,
    )


def _check_checkpoints(config: Sft) -> None:
    folder = config.checkpoint_folder
    if config.checkpoint_every and not config.resume and finished_checkpoints(folder):
        raise InputError(
            f"'{folder}' holds checkpoints of an earlier run; go on with it by --resume, or name "
            "another folder with --checkpoints"
        )


def _identity(config: Sft) -> bytes:
    """What has to be the same for a run to go on: the traces, and what decides the steps."""
    settings = {name: getattr(config, name) for name in _SAME_ON_RESUME}
    return json.dumps(
        settings | {"traces": digest_of(Path(config.traces)).blake2b}, sort_keys=True
    ).encode()


def _resume(
    config: Sft, model: nn.Module, optimizer: SftOptimizer, rank: Rank, identity: bytes
) -> None:
    folder = config.checkpoint_folder
    progress = load_newest(folder, model, optimizer, rank, model_source=Path(config.model))
    if progress is None:
        raise InputError(f"nothing to resume: '{folder}' holds no checkpoint; leave out --resume")
    saved, given = json.loads(progress.ledger), json.loads(identity)
    differing = [key for key in sorted(given) if saved.get(key) != given[key]]
    if differing:
        listed = ", ".join(
            f"{key} {saved.get(key)!r} then, {given[key]!r} now" for key in differing
        )
        raise InputError(f"the checkpoint in '{folder}' is of another run: {listed}")


def main() -> int:
    """Entry point of ``python -m learner.sft.main``; 2 for an expected error."""
    configure_logging("sft", force=False)
    parser = argparse.ArgumentParser(
        prog="learner.sft.main", description="Train a model folder on a trace file."
    )
    add_options(parser)
    try:
        run(config_from_options(vars(parser.parse_args())))
    except LZeroError as error:
        log.error("%s", error)
        return 2
    except (RuntimeError, MemoryError) as error:
        if (failure := named(error)) is None:
            raise
        log.error("%s", failure)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
