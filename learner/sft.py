"""Supervised fine-tuning on traces, with the model, packing and sharding of the learner.

    python -m learner.sft --model FOLDER --traces FILE --output FOLDER
    torchrun --nproc-per-node 2 -m learner.sft ...

A trace file holds JSON lines ``{"segments": [{"text": ..., "action": true or false}, ...]}``. The
loss is cross-entropy, weight 1 on the tokens of actions and less on the rest (a segment may name
its own ``weight``), divided by a constant instead of the batch's tokens, so that a short trace does
not count more than a long one.
"""

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from common.errors import InputError
from learner.losses import cross_entropy
from learner.model import load_model, token_logprobs
from learner.model_folder import write_model_folder
from learner.packing import PackableSegment, pack_for_ranks, segment_of_examples
from learner.sharding import Rank, full_state_dict, seed_everything, shard, training_processes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SftConfig:
    """One run of supervised fine-tuning; every field is an option of the command line."""

    model: str
    """Folder of the model to start from."""
    traces: str
    """Trace file."""
    output: str
    """Folder for the result."""
    epochs: int = 1
    batch: int = 16
    """Traces per optimizer step."""
    context_weight: float = 0.3
    """Loss weight of tokens outside actions."""
    normaliser: float = 52.0
    """The loss of a batch is divided by this times ``batch``; about the weight of a mean trace."""
    muon_learning_rate: float = 0.02
    """For matrices inside the layers."""
    adamw_learning_rate: float = 3e-3
    """For embeddings, output layer and norms."""
    warmup_steps: int = 50
    final_share: float = 0.02
    """Learning rates fall linearly to this share."""
    grad_clip: float = 1.0
    pack_tokens: int = 8192
    """Token budget of one forward and backward pass."""
    seed: int = 0
    threads: int = 1
    """Torch threads per process."""
    save_dtype: str = "bfloat16"
    """Type of the saved weights; training is in float32."""
    log_every: int = 100


def read_traces(path: Path, tokenizer: Tokenizer, context_weight: float) -> list[PackableSegment]:
    """Encode a trace file span by span, as rollouts do.

    Raises:
        InputError: the file is missing, empty or malformed; names file and line.
    """
    examples = []
    for number, spans in enumerate(_read_spans(path, context_weight), start=1):
        encodings = tokenizer.encode_batch([text for text, _ in spans], add_special_tokens=False)
        ids: list[int] = []
        weights: list[float] = []
        for encoding, (_, weight) in zip(encodings, spans, strict=True):
            ids += encoding.ids
            weights += [weight] * len(encoding.ids)
        weights[0] = 0.0
        examples.append(segment_of_examples(ids, weights, name=f"{path}:{number}"))
    if not examples:
        raise InputError(f"trace file '{path}' is empty")
    return examples


def _read_spans(path: Path, context_weight: float) -> Iterator[list[tuple[str, float]]]:
    try:
        lines = path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"trace file '{path}' cannot be read: {error}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                spans = [_span(entry, context_weight) for entry in json.loads(line)["segments"]]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"trace file '{path}' line {number}: expected "
                    f'{{"segments": [{{"text": ..., "action": ...}}]}}, got {error!r}'
                ) from error
            if not spans or not spans[0][0]:
                raise InputError(f"trace file '{path}' line {number}: it has no text")
            yield spans


def _span(entry: dict[str, Any], context_weight: float) -> tuple[str, float]:
    default = 1.0 if entry["action"] else context_weight
    return str(entry["text"]), float(entry.get("weight", default))


def make_optimizers(model: nn.Module, config: SftConfig) -> tuple[Optimizer, Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    inside: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        else:
            (inside if ".layers." in name else matrices).append(parameter)
    muon = Muon(
        inside,
        lr=config.muon_learning_rate,
        weight_decay=0.01,
        momentum=0.95,
        adjust_lr_fn="original",
    )
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return muon, AdamW(groups, lr=config.adamw_learning_rate, betas=(0.9, 0.98))


def learning_rate_share(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the full learning rate at ``step`` of ``steps``: linear warm-up, linear decay."""
    return min(1.0, (step + 1) / warmup) * (1.0 - (1.0 - final) * step / steps)


def train(
    model: nn.Module, examples: Sequence[PackableSegment], config: SftConfig, rank: Rank
) -> float:
    """Train in place; returns the mean loss of the last steps on this rank."""
    optimizers = make_optimizers(model, config)
    full_rates = [group["lr"] for opt in optimizers for group in opt.param_groups]
    batches = list(_batches(examples, config))
    losses: list[float] = []
    began = time.monotonic()
    for step, batch in enumerate(batches):
        share = learning_rate_share(step, len(batches), config.warmup_steps, config.final_share)
        groups = [group for opt in optimizers for group in opt.param_groups]
        for group, rate in zip(groups, full_rates, strict=True):
            group["lr"] = rate * share
        losses.append(_step(model, batch, optimizers, config, rank))
        if rank.is_first and (step + 1) % config.log_every == 0:
            recent = sum(losses[-config.log_every :]) / config.log_every
            log.info(
                "trained step=%d of=%d loss=%.4f seconds=%.0f",
                step + 1, len(batches), recent, time.monotonic() - began,
            )  # fmt: skip
    recent_losses = losses[-config.log_every :]
    return sum(recent_losses) / len(recent_losses)


def _batches(
    examples: Sequence[PackableSegment], config: SftConfig
) -> Iterator[list[PackableSegment]]:
    for epoch in range(config.epochs):
        order = list(range(len(examples)))
        random.Random(f"sft:{config.seed}:{epoch}").shuffle(order)
        for start in range(0, len(order), config.batch):
            yield [examples[i] for i in order[start : start + config.batch]]


def _step(
    model: nn.Module,
    batch: list[PackableSegment],
    optimizers: tuple[Optimizer, Optimizer],
    config: SftConfig,
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
    nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    if not math.isfinite(total):
        raise InputError(f"the loss became {total}; lower the learning rates")
    return total


def run(config: SftConfig) -> None:
    """Train ``config.model`` on ``config.traces`` and write ``config.output``."""
    torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    source = Path(config.model)
    with training_processes() as rank:
        model = shard(load_model(source), rank, compute_dtype=torch.float32)
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        examples = read_traces(Path(config.traces), tokenizer, config.context_weight)
        tokens = sum(len(example) for example in examples)
        log.info("read traces path=%s count=%d tokens=%d", config.traces, len(examples), tokens)
        loss = train(model, examples, config, rank)
        state = full_state_dict(model)
        if rank.is_first:
            dtype = getattr(torch, config.save_dtype)
            write_model_folder(state, source, Path(config.output), dtype)
            log.info("wrote model path=%s loss=%.4f", config.output, loss)


def _parse() -> SftConfig:
    parser = argparse.ArgumentParser(description="Train a model folder on a trace file.")
    for field in fields(SftConfig):
        required = field.name in ("model", "traces", "output")
        kind = field.type if isinstance(field.type, type) else str
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            required=required,
            default=None if required else field.default,
        )
    return SftConfig(**vars(parser.parse_args()))


def main() -> None:
    """Entry point of ``python -m learner.sft``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run(_parse())


if __name__ == "__main__":
    main()
