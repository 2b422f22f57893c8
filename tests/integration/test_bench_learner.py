"""The learner's benchmark compares steps that do the same, and reports what it promises."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.learner import versus as learner_versus
from benchmarks.learner.flops import count_parameters
from benchmarks.learner.measures import Rounds
from benchmarks.learner.mix import (
    Mix,
    draw_lengths,
    full_length_trajectories,
    make_trajectories,
    samples_by_step,
)
from benchmarks.learner.models import QWEN3_0_6B, TINY, write_model
from benchmarks.learner.ours import OBJECTIVE, Engine, OurStep
from benchmarks.learner.packs import Packs, against_published, measure_packs
from benchmarks.learner.peers import Layout, PaddedStep, count_tokens, plan_batches
from benchmarks.learner.versus import Versus, measure_versus
from common.wire.records import NOT_AN_ACTION
from learner.engine.mesh import training_processes
from learner.packs.batch import Batch, build_batch

SMALL = {**TINY, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
MIX = Mix(groups=2, group_size=4, shrink=64, vocabulary=64)
VERSUS = Versus(mix=MIX, engine=Engine(pack_tokens=512), shape=SMALL, rounds=1, rows=4)


def batch_of(mix: Mix) -> Batch:
    return build_batch(make_trajectories(mix), learner_version=0, objective=OBJECTIVE)


def test_lengths_have_the_quantiles_that_the_mix_says() -> None:
    many = Mix(groups=2500, shrink=4)

    lengths = draw_lengths(many, np.random.default_rng(0)) * 4

    assert len(lengths) == 20_000
    assert np.quantile(lengths, 0.5) == pytest.approx(2048, rel=0.05)
    assert np.quantile(lengths, 0.99) == pytest.approx(16384, rel=0.1)
    assert lengths.max() <= 32768


def test_episodes_have_eight_steps_that_grow_to_the_length_drawn() -> None:
    trajectories = make_trajectories(MIX)

    lengths = draw_lengths(MIX, np.random.default_rng(MIX.seed))
    for trajectory, length in zip(trajectories, lengths, strict=True):
        (segment,) = trajectory.segments
        sampled = segment.action_index[segment.action_index != NOT_AN_ACTION]
        assert len(segment.token_ids) == length
        assert list(np.unique(sampled)) == list(range(8))
        assert (np.diff(sampled) >= 0).all()
        assert segment.action_index[0] == NOT_AN_ACTION
        assert segment.action_index[-1] == 7
    assert make_trajectories(MIX)[3].step_rewards[-1] == trajectories[3].step_rewards[-1]


def test_a_sample_by_step_is_an_action_after_all_that_came_before_it() -> None:
    segment = batch_of(MIX).segments[0]

    samples = list(samples_by_step(segment))

    assert len(samples) == 8
    assert len(samples[-1]) == len(segment)
    learnt = [np.flatnonzero(sample.weights) for sample in samples]
    assert list(np.concatenate(learnt)) == list(np.flatnonzero(segment.weights))
    for sample, own in zip(samples, learnt, strict=True):
        assert own[-1] == len(sample) - 1
        assert (sample.token_ids == segment.token_ids[: len(sample)]).all()


def test_padded_tokens_are_rows_times_the_longest_row() -> None:
    segments = batch_of(MIX).segments
    lengths = [len(segment) for segment in segments]

    def tokens(layout: Layout) -> int:
        return count_tokens(plan_batches(segments, rows=4, layout=layout))

    ordered = sorted(lengths)
    assert tokens("segments") == 4 * max(lengths[:4]) + 4 * max(lengths[4:])
    assert tokens("segments_by_length") == 4 * ordered[3] + 4 * ordered[7]
    assert tokens("steps") == 8 * 8 * max(lengths)


def test_every_way_takes_the_same_optimizer_step(tmp_path: Path) -> None:
    write_model(SMALL, tmp_path)
    trajectories = make_trajectories(MIX)
    config = VERSUS.engine.config(tmp_path).learner

    with training_processes() as rank:
        metrics = OurStep(tmp_path, rank, VERSUS.engine).run(trajectories)
        others = [
            PaddedStep(tmp_path, rank.device, config=config, objective=OBJECTIVE, rows=3).run(
                trajectories, layout=layout
            )
            for layout in learner_versus.NAMES
        ]

    assert metrics.update is not None
    assert metrics.masked_share == 0
    assert metrics.update.gradient_norm > 1e-3
    for other in others:
        assert other.loss == pytest.approx(metrics.tally.loss, rel=1e-4)
        assert other.gradient_norm == pytest.approx(metrics.update.gradient_norm, rel=1e-4)


def test_the_report_holds_figures_ratios_and_the_mix(tmp_path: Path) -> None:
    with training_processes() as rank:
        report = measure_versus(
            VERSUS, tmp_path / "model", rank, peak=1e12, trace=tmp_path / "trace.json"
        )
    report.write(tmp_path / "report.json")

    written: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    figures, ratios = written["figures"], written["ratios"]
    segments = batch_of(MIX).segments
    useful = sum(map(len, segments))
    assert written["settings"]["mix_shrink"] == 64
    assert written["settings"]["useful_tokens"] == useful
    assert figures["tokens_per_s"] * figures["step_s"] == pytest.approx(useful)
    assert 0 < figures["mfu"] < 1
    assert figures["peak_memory_gib"] > 0
    assert figures["padding_share"] == 0
    assert ratios["processed_vs_useful_tokens"] == 1
    assert ratios["useful_tokens_per_s_vs_padded"] == pytest.approx(
        figures["tokens_per_s"] / figures["padded_useful_tokens_per_s"]
    )
    assert ratios["processed_tokens_vs_per_step_layout"] * useful == pytest.approx(
        64 * max(map(len, segments))
    )
    names = {
        event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    }
    assert "pack 0" in names


@pytest.mark.parametrize("settings", [learner_versus.CPU, learner_versus.CPU_QUICK])
def test_the_mix_of_the_benchmark_leaves_room_for_its_targets(settings: Versus) -> None:
    segments = batch_of(settings.mix).segments
    useful = sum(map(len, segments))

    per_step = count_tokens(plan_batches(segments, rows=settings.rows, layout="steps"))
    padded = count_tokens(plan_batches(segments, rows=settings.rows, layout="segments"))

    assert per_step / useful > 5
    assert padded / useful > 2


def test_full_length_packs_are_measured_by_the_same_script_without_a_gpu(tmp_path: Path) -> None:
    settings = Packs(
        shape=SMALL,
        lengths=(96, 192),
        warmup=1,
        steps=2,
        engine=Engine(pack_tokens=96, activation_checkpointing="full"),
    )

    with training_processes() as rank:
        report = measure_packs(settings, tmp_path, rank, peak=1e12)

    figures = report.figures
    assert figures["tokens_per_s"] == figures["tokens_per_s_96"]
    for length in settings.lengths:
        seconds, tokens_per_s = figures[f"step_s_{length}"], figures[f"tokens_per_s_{length}"]
        assert seconds is not None
        assert tokens_per_s == pytest.approx(2 * length / seconds)
        assert 0 < (figures[f"mfu_causal_{length}"] or 0) < (figures[f"mfu_{length}"] or 0) < 1
    assert report.settings["attention"] == "one_by_one"


def test_published_figures_are_compared_on_the_published_device_only() -> None:
    own: dict[str, float | None] = {"tokens_per_s": 35_700.0, "mfu": 0.333}

    on_the_same = against_published(16_384, own, "NVIDIA H100 80GB HBM3")
    elsewhere = against_published(16_384, own, "NVIDIA A100-SXM4-80GB")

    assert on_the_same == {
        "tokens_per_s_vs_prime_rl_16384": pytest.approx(3.0),
        "mfu_vs_prime_rl_16384": pytest.approx(3.0),
    }
    assert elsewhere == {}


def test_full_length_sequences_train_all_tokens_but_the_first() -> None:
    trajectories = full_length_trajectories(2, 40, vocabulary=64)

    batch = build_batch(trajectories, learner_version=0, objective=OBJECTIVE)

    assert [len(segment) for segment in batch.segments] == [40, 40]
    assert batch.num_action_tokens == 78


def test_the_shape_of_the_gpu_benchmark_is_that_of_the_published_model() -> None:
    rest = dict(QWEN3_0_6B)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(rest.pop("model_type"), **rest)
        )

    held = sum(parameter.numel() for parameter in model.parameters())
    assert held == count_parameters(QWEN3_0_6B).total == 596_049_920
    assert model.config.rope_parameters["rope_theta"] == 1_000_000.0


def test_a_way_that_does_not_fit_into_memory_has_no_median() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    rounds: Rounds[None] = Rounds()
    rounds.add(fail, torch.device("cpu"))
    rounds.add(lambda: None, torch.device("cpu"))

    assert rounds.is_too_large
    assert rounds.median_s is None


def test_quick_settings_are_a_smaller_case_of_the_same() -> None:
    full, quick = learner_versus.CPU, learner_versus.CPU_QUICK

    assert replace(quick.mix, shrink=full.mix.shrink, groups=full.mix.groups) == full.mix
    assert quick.shape == full.shape
    assert quick.rows == full.rows
