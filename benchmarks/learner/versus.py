"""The learner against padding: useful tokens per second on episodes of very different lengths."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.learner.flops import count_parameters, training_flops, utilisation
from benchmarks.learner.measures import Rounds, device_name
from benchmarks.learner.mix import Mix, make_trajectories
from benchmarks.learner.models import QWEN3_0_6B, TINY, shape_of, write_model
from benchmarks.learner.ours import OBJECTIVE, Engine, OurStep
from benchmarks.learner.peers import Layout, PaddedResult, PaddedStep, count_tokens, plan_batches
from benchmarks.report import Report, make_report, ratio
from common.wire.records import Trajectory
from learner.engine.mesh import Rank
from learner.packs.batch import Batch, build_batch
from learner.packs.packing import filler_share, pack_for_ranks
from learner.step.metrics import StepMetrics

Figures = dict[str, float | None]
MANY_RANKS = 8
NAMES: dict[Layout, str] = {
    "segments": "padded",
    "segments_by_length": "padded_by_length",
    "steps": "per_step_layout",
}
"""What figures call the peers."""


@dataclass(frozen=True, kw_only=True)
class Versus:
    """What is measured.

    Attributes:
        mix: the batch; with ``shrink`` the factor by which its lengths are divided.
        engine: how models compute.
        shape: of the model, as in its config.json; ``vocabulary`` of the mix must fit.
        rounds: turns that the ways take, after one that is not counted.
        rows: samples in a micro-batch of the peers.
        per_step_batches: micro-batches of the per-step layout in a turn. All have the same shape,
            so that the time of some tells that of all.
    """

    mix: Mix
    engine: Engine
    shape: Mapping[str, Any]
    rounds: int
    rows: int = 8
    per_step_batches: int = 1


CPU = Versus(
    mix=Mix(shrink=8, groups=8, vocabulary=TINY["vocab_size"]),
    engine=Engine(pack_tokens=4096),
    shape=TINY,
    rounds=6,
    per_step_batches=2,
)
CPU_QUICK = Versus(
    mix=Mix(shrink=16, vocabulary=TINY["vocab_size"]),
    engine=Engine(pack_tokens=2048),
    shape=TINY,
    rounds=5,
)
_HALF = Engine(
    pack_tokens=32768 // 4, dtype="bfloat16", activation_checkpointing="full", compile=True
)
CUDA = Versus(
    mix=Mix(shrink=4, groups=8, vocabulary=QWEN3_0_6B["vocab_size"]),
    engine=_HALF,
    shape=QWEN3_0_6B,
    rounds=5,
    per_step_batches=2,
)
CUDA_QUICK = Versus(
    mix=Mix(shrink=4, vocabulary=QWEN3_0_6B["vocab_size"]),
    engine=_HALF,
    shape=QWEN3_0_6B,
    rounds=2,
)


def measure_versus(
    settings: Versus,
    folder: Path,
    rank: Rank,
    *,
    peak: float | None = None,
    trace: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run every way in turns.

    Args:
        settings: what is measured.
        folder: for the model.
        rank: the only one.
        peak: operations per second of the device, if known.
        trace: where to write a trace of one more step of ours.
        say: is told what goes on.
    """
    say("writing the model")
    write_model(settings.shape, folder)
    trajectories = make_trajectories(settings.mix)
    batch = build_batch(trajectories, learner_version=0, objective=OBJECTIVE)
    ours = OurStep(folder, rank, settings.engine)
    padded = PaddedStep(
        folder,
        rank.device,
        config=settings.engine.config(folder).learner,
        objective=OBJECTIVE,
        rows=settings.rows,
        half=settings.engine.dtype == "bfloat16",
    )
    own, others = take_turns(settings, ours, padded, trajectories, rank.device, say)
    if trace is not None:
        say("tracing")
        ours.trace(trajectories, trace)
    flops = training_flops(shape_of(folder), _lengths(batch), batch.num_action_tokens)
    figures, ratios = compare(settings, batch, own, others)
    figures["mfu"] = utilisation(flops, own.median_s, peak) if own.median_s else None
    return make_report("learner", settings=_told(settings, batch), figures=figures, ratios=ratios)


def take_turns(
    settings: Versus,
    ours: OurStep,
    padded: PaddedStep,
    trajectories: Sequence[Trajectory],
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Rounds[StepMetrics], dict[Layout, Rounds[PaddedResult]]]:
    """One turn of every way to warm up, then ``settings.rounds`` that count."""
    most: dict[Layout, int | None] = {
        "segments": None,
        "segments_by_length": None,
        "steps": settings.per_step_batches,
    }
    own, others = _no_rounds(most)
    for turn in range(settings.rounds + 1):
        say(f"round {turn} of {settings.rounds}" if turn else "warming up")
        if turn == 1:
            own, others = _no_rounds(most)
        own.add(partial(ours.run, trajectories), device)
        for layout, rounds in others.items():
            run = partial(padded.run, trajectories, layout=layout, most_batches=most[layout])
            rounds.add(run, device)
    return own, others


def _no_rounds(
    layouts: Iterable[Layout],
) -> tuple[Rounds[StepMetrics], dict[Layout, Rounds[PaddedResult]]]:
    return Rounds(), {layout: Rounds() for layout in layouts}


def compare(
    settings: Versus,
    batch: Batch,
    own: Rounds[StepMetrics],
    others: Mapping[Layout, Rounds[PaddedResult]],
) -> tuple[Figures, Figures]:
    """Figures of every way, and how many times better ours is."""
    useful = sum(_lengths(batch))
    tally = own.results[0].tally
    rate = _over(useful, own.median_s)
    figures: Figures = {
        "tokens_per_s": rate,
        "mfu": None,
        "peak_memory_gib": own.peak,
        "padding_share": 1 - useful / tally.tokens,
        f"padding_share_{MANY_RANKS}_ranks": _filler_share(settings, batch),
        "packs": tally.packs,
        "step_s": own.median_s,
    }
    ratios: Figures = {"processed_vs_useful_tokens": tally.tokens / useful}
    for layout, rounds in others.items():
        name = NAMES[layout]
        plan = plan_batches(batch.segments, rows=settings.rows, layout=layout)
        processed = count_tokens(plan)
        other_rate = _over(useful, _seconds_of_step(rounds, len(plan)))
        figures |= {
            f"{name}_useful_tokens_per_s": other_rate,
            f"{name}_processed_tokens": processed,
            f"{name}_padding_share": 1 - sum(len(s) for part, _ in plan for s in part) / processed,
            f"{name}_peak_memory_gib": rounds.peak,
        }
        ratios[f"useful_tokens_per_s_vs_{name}"] = ratio(other_rate, rate)
        ratios[f"processed_tokens_vs_{name}"] = processed / tally.tokens
        if layout != "steps" and rounds.results:
            ratios[f"cpu_time_vs_{name}"] = median(rounds.cpu_seconds) / median(own.cpu_seconds)
    return figures, ratios


def _seconds_of_step(rounds: Rounds[PaddedResult], batches: int) -> float | None:
    """Of a whole step; where only some micro-batches were run, of the passes of all of them."""
    if not rounds.results or rounds.results[0].batches == batches:
        return rounds.median_s
    return median(result.pass_seconds * batches / result.batches for result in rounds.results)


def _over(tokens: float, seconds: float | None) -> float | None:
    return None if seconds is None else tokens / seconds


def _filler_share(settings: Versus, batch: Batch) -> float:
    """Padding if many ranks shared the batch, some of which get packs of nothing."""
    packs = pack_for_ranks(batch.segments, budget=settings.engine.pack_tokens, ranks=MANY_RANKS)
    return filler_share(pack for share in packs for pack in share)


def _lengths(batch: Batch) -> list[int]:
    return [len(segment) for segment in batch.segments]


def _told(settings: Versus, batch: Batch) -> dict[str, Any]:
    """What the report says about the mix and the model."""
    lengths = _lengths(batch)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "rounds": settings.rounds,
        "rows": settings.rows,
        **{f"mix_{key}": value for key, value in asdict(settings.mix).items()},
        "segments": len(lengths),
        "useful_tokens": sum(lengths),
        "median_segment": median(lengths),
        "longest_segment": max(lengths),
        "action_tokens": batch.num_action_tokens,
        **asdict(settings.engine),
        "parameters": count_parameters(settings.shape).total,
    }
