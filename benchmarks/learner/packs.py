"""The learner on one full-length sequence a pack, as others publish figures.

The step trains every token but the first of each sequence, with two packs a step, full activation
checkpointing and no adapters; utilisation is counted by the formula of prime-rl.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.learner.flops import (
    count_parameters,
    flops_per_token,
    flops_per_token_of_prime_rl,
    utilisation,
)
from benchmarks.learner.measures import Rounds, device_name, reset_peak
from benchmarks.learner.mix import full_length_trajectories
from benchmarks.learner.models import QWEN3_0_6B, TINY, write_model
from benchmarks.learner.ours import Engine, OurStep
from benchmarks.report import Report, make_report, ratio
from learner.engine.attention import attention_backend
from learner.engine.mesh import Rank
from learner.step.metrics import StepMetrics

Figures = dict[str, float | None]

PUBLISHED = {16_384: (11_900.0, 0.111), 65_536: (10_150.0, 0.268)}
"""Tokens per second and utilisation that prime-rl publishes for Qwen3-0.6B on one H100, by tokens
of a sequence: full fine-tune, recomputed activations, flash-attn 3 (benchmarks, January 2026)."""


@dataclass(frozen=True, kw_only=True)
class Packs:
    """What is measured.

    Attributes:
        shape: of the model, as in its config.json.
        lengths: tokens of a sequence and of a pack, one measurement each.
        packs: sequences of a step, one in each pack.
        warmup: steps that are not counted: they compile and allocate.
        steps: steps that count.
        engine: how the model computes; ``pack_tokens`` is each of ``lengths`` in turn.
    """

    shape: Mapping[str, Any]
    lengths: tuple[int, ...]
    packs: int = 2
    warmup: int = 3
    steps: int = 10
    engine: Engine


CUDA = Packs(
    shape=QWEN3_0_6B,
    lengths=(16_384, 65_536),
    engine=Engine(
        pack_tokens=16_384, dtype="bfloat16", activation_checkpointing="full", compile=True
    ),
)
CUDA_QUICK = replace(CUDA, lengths=(16_384,), warmup=2, steps=3)
CPU = Packs(
    shape=TINY,
    lengths=(1024, 4096),
    warmup=1,
    steps=5,
    engine=Engine(pack_tokens=1024, activation_checkpointing="full"),
)
CPU_QUICK = replace(CPU, lengths=(256, 1024), steps=2)


def measure_packs(
    settings: Packs,
    folder: Path,
    rank: Rank,
    *,
    peak: float | None = None,
    trace: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure every length; the first one gives the figures without a length in their names.

    Args:
        settings: what is measured.
        folder: for the model.
        rank: the only one.
        peak: operations per second of the device, if known.
        trace: where to write a trace of one more step of the first length.
        say: is told what goes on.
    """
    say("writing the model")
    write_model(settings.shape, folder)
    figures: Figures = {}
    ratios: Figures = {}
    for number, length in enumerate(settings.lengths):
        say(f"packs of {length} tokens")
        rounds = _steps_of(settings, folder, rank, length, None if number else trace)
        own = figures_of(settings, length, rounds, peak)
        figures |= {name: value for name, value in own.items() if number == 0}
        figures |= {f"{name}_{length}": value for name, value in own.items()}
        ratios |= against_published(length, own, device_name())
    return make_report(
        "learner_packs", settings=_told(settings, rank), figures=figures, ratios=ratios
    )


def _steps_of(
    settings: Packs, folder: Path, rank: Rank, length: int, trace: Path | None
) -> Rounds[StepMetrics]:
    """Steps on packs of one length, by a model of their own."""
    reset_peak(rank.device)  # the model of the length before is gone
    trajectories = full_length_trajectories(
        settings.packs, length, vocabulary=settings.shape["vocab_size"]
    )
    ours = OurStep(folder, rank, replace(settings.engine, pack_tokens=length))
    rounds: Rounds[StepMetrics] = Rounds()
    for step in range(settings.warmup + settings.steps):
        if step == settings.warmup:
            rounds = Rounds()
        rounds.add(partial(ours.run, trajectories), rank.device)
    if trace is not None:
        ours.trace(trajectories, trace)
    return rounds


def figures_of(
    settings: Packs, length: int, rounds: Rounds[StepMetrics], peak: float | None
) -> Figures:
    """Of one length; None where the device's memory was too small."""
    seconds = rounds.median_s
    if seconds is None:
        return dict.fromkeys(("tokens_per_s", "mfu", "mfu_causal", "peak_memory_gib", "step_s"))
    tokens = rounds.results[0].tally.tokens
    dense = flops_per_token_of_prime_rl(settings.shape, length)
    causal = flops_per_token(settings.shape, length)
    return {
        "tokens_per_s": tokens / seconds,
        "mfu": utilisation(tokens * dense, seconds, peak),
        "mfu_causal": utilisation(tokens * causal, seconds, peak),
        "peak_memory_gib": rounds.peak,
        "step_s": seconds,
    }


def against_published(length: int, own: Figures, device: str) -> Figures:
    """How many times better than published, for a length and a device that were."""
    if length not in PUBLISHED or "H100" not in device:
        return {}
    tokens_per_s, mfu = PUBLISHED[length]
    return {
        f"tokens_per_s_vs_prime_rl_{length}": ratio(tokens_per_s, own["tokens_per_s"]),
        f"mfu_vs_prime_rl_{length}": ratio(mfu, own["mfu"]),
    }


def _told(settings: Packs, rank: Rank) -> dict[str, Any]:
    dtype = getattr(torch, settings.engine.dtype)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "lengths": list(settings.lengths),
        "packs": settings.packs,
        "warmup": settings.warmup,
        "steps": settings.steps,
        **{key: value for key, value in asdict(settings.engine).items() if key != "pack_tokens"},
        "attention": attention_backend(rank.device, dtype),
        "parameters": count_parameters(settings.shape).total,
    }
