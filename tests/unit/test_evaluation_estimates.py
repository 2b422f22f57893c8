"""Intervals, pass@k and paired comparisons, against counting and against slow loops."""

import itertools
import math
import random
from statistics import fmean

import numpy as np
import pytest

from launch.evaluate.estimates import (
    Z,
    bootstrap,
    mean_interval,
    paired_difference,
    pass_at_k,
    resampled_means,
    wilson,
)


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_choices_of_k_samples_with_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        is_right = [index < right for index in range(samples)]
        for k in range(1, samples + 1):
            chosen = list(itertools.combinations(is_right, k))

            assert pass_at_k(samples, right, k) == pytest.approx(fmean(map(any, chosen)))


def test_pass_at_1_is_the_share_of_right_samples_also_of_very_many() -> None:
    assert pass_at_k(100_000, 137, 1) == pytest.approx(137 / 100_000)
    assert pass_at_k(200, 3, 100) == pytest.approx(1 - math.comb(197, 100) / math.comb(200, 100))


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_of_what_was_not_drawn_is_refused(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, right, k)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (5, 10), (30, 100), (100, 100)])
def test_the_wilson_interval_holds_the_shares_that_the_score_test_does_not_reject(
    right: int, n: int
) -> None:
    share = right / n
    candidates = np.linspace(1e-6, 1 - 1e-6, 200_001)
    score = np.abs(share - candidates) / np.sqrt(candidates * (1 - candidates) / n)
    kept = candidates[score <= Z]

    interval = wilson(share, n)

    assert interval.mean == share
    assert interval.low == pytest.approx(kept.min(), abs=1e-5)
    assert interval.high == pytest.approx(kept.max(), abs=1e-5)


def test_equal_values_are_no_certainty_and_shares_of_samples_have_one_interval() -> None:
    assert mean_interval([1.0, 0.0, 1.0]) == wilson(2 / 3, 3)
    assert mean_interval([0.4, 0.4]) == wilson(0.4, 2)
    assert mean_interval([0.5, 0.25]) == bootstrap([0.5, 0.25])
    assert mean_interval([7.0, 7.0]) == bootstrap([7.0, 7.0])
    assert mean_interval([]) == wilson(0.0, 0)


@pytest.mark.parametrize(("n", "least"), [(1, 1.0), (2, 0.5), (5, 1 / 16), (30, 2 / 10_001)])
def test_few_pairs_that_agree_prove_little(n: int, least: float) -> None:
    assert paired_difference([1.0] * n, [0.0] * n).p == pytest.approx(least)


def test_nothing_is_known_without_tasks() -> None:
    assert (wilson(0.0, 0).low, wilson(0.0, 0).high) == (0.0, 1.0)
    assert (bootstrap([]).low, bootstrap([]).high) == (0.0, 1.0)


def test_resampled_means_are_those_of_a_loop_over_the_same_draws() -> None:
    data = np.random.default_rng(0).random(37)
    rng = np.random.default_rng(5)
    slow = [fmean(data[index] for index in rng.integers(0, 37, 37)) for _ in range(50)]

    assert resampled_means(data, seed=5, resamples=50) == pytest.approx(slow)


def test_the_bootstrap_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = random.Random(3)
    covered = []
    for trial in range(300):
        interval = bootstrap([rng.random() for _ in range(60)], seed=trial, resamples=400)
        covered.append(interval.low <= 0.5 <= interval.high)

    assert 0.90 <= fmean(covered) <= 0.985


def test_a_paired_difference_is_that_of_a_slow_loop_with_the_same_draws() -> None:
    rng = random.Random(1)
    second = [float(rng.random() < 0.4) for _ in range(80)]
    first = [min(1.0, value + float(rng.random() < 0.15)) for value in second]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    draws = np.random.default_rng(9)
    means = sorted(
        fmean(differences[index] for index in draws.integers(0, 80, 80)) for _ in range(1000)
    )

    found = paired_difference(first, second, seed=9, resamples=1000)

    below, above = (sum(sign * mean <= 0 for mean in means) for sign in (1, -1))
    assert found.mean == pytest.approx(fmean(differences))
    assert found.low == pytest.approx(np.quantile(means, 0.025))
    assert found.high == pytest.approx(np.quantile(means, 0.975))
    assert found.p == pytest.approx(min(1.0, 2 * (min(below, above) + 1) / 1001))
    assert found.n == 80


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    second = [float(index % 2) for index in range(100)]
    first = [1.0 if index < 16 else value for index, value in enumerate(second)]

    found = paired_difference(first, second)

    assert found.p < 0.02
    assert wilson(fmean(second), 100).high > wilson(fmean(first), 100).low


def test_the_same_scores_do_not_differ() -> None:
    found = paired_difference([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])

    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_scores_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="some"):
        paired_difference([], [])
