"""Diagnostics of a step equal slow loops over its actions, and those of packs add up."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import exp
from statistics import fmean

import numpy as np
import pytest
import torch

from common.config import Apg, Objective
from common.wire.records import NOT_AN_ACTION, Segment
from learner.engine.optimizer import UpdateReport
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.batch import build_batch
from learner.packs.packing import pack_segments, segment_of_actions
from learner.step.breakdown import ALL, NAMES, KindOfAction, break_down, describe, no_actions
from learner.step.histogram import Bins
from learner.step.metrics import PackingReport, StepMetrics, warnings_of
from learner.step.tally import Tally, tally_pack
from learner.step.trends import Trends
from tests.step_records import make_record

VERSION = 9


@dataclass(frozen=True, kw_only=True)
class Action:
    deltas: list[float]
    behaviour: list[float]
    versions: list[int]
    advantage: float


def random_actions(count: int = 40) -> list[Action]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 90, count).tolist()
    return [
        Action(
            deltas=(0.1 * rng.normal(size=n)).tolist(),
            behaviour=(-3 * rng.random(n)).tolist(),
            versions=rng.integers(VERSION - 2 * (i % 3), VERSION + 1, n).tolist(),
            advantage=float(rng.normal()) if i % 5 else 0.0,
        )
        for i, n in enumerate(lengths)
    ]


def measure(
    actions: list[Action], objective: Objective, parts: list[list[int]]
) -> tuple[Tally, torch.Tensor]:
    """Tally and breakdown of a batch, of which each part is a pack."""
    tally, kinds = Tally(), no_actions()
    advantages = torch.tensor([action.advantage for action in actions])
    for part in parts:
        segments = [
            segment_of_actions(
                Segment(
                    token_ids=np.zeros(len(actions[i].deltas) + 1, dtype=np.int32),
                    action_index=np.array(
                        [NOT_AN_ACTION, *[0] * len(actions[i].deltas)], dtype=np.int32
                    ),
                    behaviour_logprobs=np.array([0.0, *actions[i].behaviour], dtype=np.float32),
                    versions=np.array([NOT_AN_ACTION, *actions[i].versions], dtype=np.int32),
                ),
                name=str(i),
                first_action_id=i,
            )
            for i in part
        ]
        (pack,) = pack_segments(segments, budget=100_000)
        deltas = {i: actions[i].deltas for i in part}
        flat = [d for i in dict.fromkeys(pack.action_ids.tolist()) for d in deltas[i]]
        learner = pack.behaviour_logprobs + torch.tensor(flat)
        sampled = SampledActions(
            behaviour_logprobs=pack.behaviour_logprobs,
            action_ids=pack.action_ids,
            versions=pack.versions,
            advantages=advantages,
            learner_version=VERSION,
            max_staleness=3,
        )
        counts = Normalisers(tokens=1, actions=1)
        result = policy_loss(learner, sampled, objective=objective, normalisers=counts)
        tally += tally_pack(pack, learner, result.loss, result.verdicts, version=VERSION)
        kinds += break_down(result.verdicts, advantages)
    return tally, kinds


def metrics_of(tally: Tally, kinds: dict[str, KindOfAction] | None = None) -> StepMetrics:
    return StepMetrics(
        version=VERSION,
        batch=build_batch([], learner_version=VERSION, objective=Objective()).summary,
        tally=tally,
        updates=(UpdateReport(gradient_norm=1.0, learning_rate=1e-3, applied=True),),
        seconds=1.0,
        packing=PackingReport(budget=100),
        kinds=kinds or {},
    )


def test_numbers_of_actions_and_tokens_equal_a_slow_loop() -> None:
    actions = random_actions()
    objective = Objective(apg=Apg(weight_limits_positive=(0.5, 1.5), kappa=0.2))
    tally, sums = measure(actions, objective, [list(range(len(actions)))])

    found = metrics_of(tally, describe(sums)).diagnostics()

    totals = [sum(a.deltas) for a in actions]
    limits = [(0.5, 1.5) if a.advantage >= 0 else (0.0, 1.0) for a in actions]
    weights = [min(max(exp(s), low), high) for s, (low, high) in zip(totals, limits, strict=True)]
    tokens = [
        (b + d, b, VERSION - v)
        for a in actions
        for b, d, v in zip(a.behaviour, a.deltas, a.versions, strict=True)
    ]
    fresh = [own - theirs for own, theirs, age in tokens if age == 0]
    distinct = [len(set(a.versions)) for a in actions]

    def by_token(flags: Iterable[bool]) -> float:
        return fmean(f for f, a in zip(flags, actions, strict=True) for _ in a.deltas)

    expected = {
        "log_rho_min": min(totals),
        "log_rho_max": max(totals),
        "weight_mean": fmean(weights),
        "weight_min": min(weights),
        "weight_max": max(weights),
        "upper_limit_share": by_token(w < exp(s) for w, s in zip(weights, totals, strict=True)),
        "lower_limit_share": by_token(w > exp(s) for w, s in zip(weights, totals, strict=True)),
        "versions_per_action": fmean(distinct),
        "mixed_versions_share": fmean(d > 1 for d in distinct),
        "probability_gap": fmean(abs(exp(own) - exp(theirs)) for own, theirs, _ in tokens),
        "entropy_estimate": -fmean(own for own, _, _ in tokens),
        "behaviour_entropy_estimate": -fmean(theirs for _, theirs, _ in tokens),
        "token_staleness_mean": fmean(age for _, _, age in tokens),
        "token_staleness_max": max(age for _, _, age in tokens),
        "mismatch_d": fmean(fresh),
        "mismatch_rms": fmean(d * d for d in fresh) ** 0.5,
        "mismatch_far_share": fmean(abs(d) > 0.5 for d in fresh),
        "advantage_mean": fmean(a.advantage for a in actions),
        "advantage_std": float(np.std([a.advantage for a in actions])),
        "tokens_mean": fmean(len(a.deltas) for a in actions),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert 0 < found["upper_limit_share"] < 1
    assert 0 < found["lower_limit_share"] < 1
    assert 0 < found["mixed_versions_share"] < 1


def test_used_weights_count_masked_actions_as_nothing() -> None:
    actions = random_actions()
    objective = Objective(apg=Apg(kappa=0.1))
    tally, _ = measure(actions, objective, [list(range(len(actions)))])

    assert 0 < tally.masked < len(actions)
    used = metrics_of(tally).diagnostics()["ess_used"]
    assert used == pytest.approx(
        tally.used_weight**2 / (len(actions) * tally.used_weight_squared), rel=1e-6
    )
    assert used <= 1 - tally.masked / len(actions) + 1e-9


def test_kinds_of_action_equal_a_slow_loop() -> None:
    actions = random_actions()
    _, sums = measure(actions, Objective(), [list(range(len(actions)))])

    kinds = describe(sums)

    members = {
        ALL: actions,
        "negative": [a for a in actions if a.advantage < 0],
        "staleness_2_4": [a for a in actions if 2 <= VERSION - min(a.versions) <= 4],
        "tokens_64_255": [a for a in actions if 64 <= len(a.deltas) <= 255],
    }
    for name, own in members.items():
        totals = np.array([sum(a.deltas) for a in own])
        lengths = [len(a.deltas) for a in own]
        assert kinds[name].actions == len(own) > 1, name
        size = np.exp(totals).sum() ** 2 / (len(own) * np.exp(2 * totals).sum())
        assert kinds[name].effective_sample_size == pytest.approx(size, rel=1e-4)
        assert kinds[name].k1 == pytest.approx(-totals.sum() / sum(lengths), rel=1e-4)
        assert kinds[name].advantage_mean == pytest.approx(
            fmean(a.advantage for a in own), rel=1e-5, abs=1e-6
        )
    assert set(kinds) <= set(NAMES)


@pytest.mark.parametrize("seed", range(3))
def test_diagnostics_of_packs_add_up_to_those_of_the_batch(seed: int) -> None:
    actions = random_actions()
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 5, len(actions))
    parts = [np.flatnonzero(owner == part).tolist() for part in range(5)]

    whole, whole_kinds = measure(actions, Objective(), [list(range(len(actions)))])
    split, split_kinds = measure(actions, Objective(), parts)

    expected = metrics_of(whole, describe(whole_kinds)).diagnostics()
    found = metrics_of(split, describe(split_kinds)).diagnostics()
    for name, value in expected.items():
        if name != "pack_fill":
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_nothing_that_is_reported_of_an_empty_step_is_infinite() -> None:
    found = metrics_of(Tally(), describe(no_actions())).diagnostics()

    assert all(np.isfinite(value) for value in found.values()), found


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_percentiles_of_merged_histograms_are_near_the_exact_ones(share: float) -> None:
    bins = Bins.by_magnitude(1e-4, 20.0, signed=True)
    generator = torch.Generator().manual_seed(0)
    values = 0.4 * torch.randn(20_000, generator=generator) + 0.1
    halves = [bins.fill(part, torch.ones(1, len(part), dtype=torch.bool))
              for part in values.split([3_000, 17_000])]  # fmt: skip

    found = bins.percentile((halves[0] + halves[1])[0], share)

    exact = float(np.quantile(values.numpy(), share))
    assert found == pytest.approx(exact, rel=0.1, abs=0.01)


def test_numbers_beyond_the_last_edge_are_reported_as_that_edge() -> None:
    bins = Bins.by_magnitude(1.0, 10.0, signed=False)

    def percentile(*values: float) -> float:
        numbers = torch.tensor(values)
        return bins.percentile(bins.fill(numbers, torch.ones(1, len(values)).bool())[0], 0.5)

    assert percentile(1e6, 1e7) == 10.0
    assert percentile(0.0, 0.0) == 1.0
    assert percentile(3.0) == pytest.approx(3.0, rel=0.16)


def healthy() -> StepMetrics:
    tally = Tally(actions=10, rho=10, rho_squared=10, targets=100, fresh_tokens=5000,
                  minus_logprob=200.0)  # fmt: skip
    kinds = {ALL: KindOfAction(actions=10, effective_sample_size=1.0, masked_share=0.0,
                               tokens_mean=20.0)}  # fmt: skip
    return metrics_of(tally, kinds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fresh_far_tokens": 10.0}, "0.2% of the tokens sampled by these very weights"),
        ({"fresh_d": -150.0, "fresh_d_squared": 10.0}, r"off by -3.0e-02 on average"),
        ({"fresh_k3": 50.0}, r"k3 of tokens .* 1.0e-02, above 0.005"),
    ],
    ids=["outliers", "drift", "divergence"],
)
def test_a_mismatch_of_the_engines_is_named_with_its_remedy(
    changes: dict[str, float], words: str
) -> None:
    metrics = healthy()
    assert warnings_of(metrics) == []

    (text,) = warnings_of(replace(metrics, tally=replace(metrics.tally, **changes)))

    assert "policy server and learner compute differently; use the same dtype" in text
    assert re.search(words, text), text


def test_a_mean_difference_that_may_be_chance_is_no_warning() -> None:
    metrics = healthy()
    noisy = replace(metrics.tally, fresh_d=-150.0, fresh_d_squared=5000.0 * 0.3)

    assert warnings_of(replace(metrics, tally=noisy)) == []


def observed(trends: Trends, steps: list[StepMetrics]) -> list[str]:
    return [text for step in steps for text in trends.observe(step, make_record(1))]


def with_tally(**changes: float) -> StepMetrics:
    return replace(healthy(), tally=replace(healthy().tally, **changes))


def with_length(tokens: float) -> StepMetrics:
    kind = replace(healthy().kinds[ALL], tokens_mean=tokens)
    return replace(healthy(), kinds={ALL: kind})


def with_norm(norm: float) -> StepMetrics:
    (update,) = healthy().updates
    return replace(healthy(), updates=(replace(update, gradient_norm=norm),))


def test_steps_without_anything_unusual_give_no_warning() -> None:
    assert observed(Trends(steps=200), [healthy()] * 150) == []


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([with_tally(rho_squared=30.0)] * 8, "below 0.5 for 5 steps in a row"),
        ([healthy()] * 30 + [with_tally(minus_logprob=90.0)] * 3, "entropy fell from 2 to 0.9"),
        ([healthy()] * 25 + [with_norm(11.0)] * 2, "norm is 11, 11 times its median"),
        ([healthy()] * 20 + [with_length(31.0)] * 30, "actions grew from 20 to 31 tokens"),
    ],
    ids=["sample size", "entropy", "gradient", "length"],
)
def test_what_goes_wrong_over_many_steps_is_said_once(steps: list[StepMetrics], words: str) -> None:
    found = observed(Trends(steps=200), steps)

    assert len(found) == 1
    assert words in found[0]


def test_steps_without_an_update_are_watched_too() -> None:
    empty = replace(healthy(), updates=())
    trends = Trends(steps=200)

    silent = [make_record(number, signal_share=0.0, parsed_share=0.0) for number in range(1, 9)]
    found = [text for record in silent for text in trends.observe(empty, record)]

    assert len(found) == 2
    assert found[0].startswith("nothing is learned: in steps 1 to 4 100% of the actions do not")


def test_a_warning_comes_again_when_its_cause_does() -> None:
    low, fine = with_tally(rho_squared=30.0), healthy()

    found = observed(Trends(steps=200), [low] * 6 + [fine] + [low] * 6)

    assert len(found) == 2
