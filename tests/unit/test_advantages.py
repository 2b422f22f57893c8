"""Returns and leave-one-out advantages equal their formulas and known values."""

import itertools

import numpy as np
import pytest

from learner.advantages import Float64, discounted_returns, group_loo


def group_loo_by_loop(returns: list[Float64], groups: list[str], clip: float) -> list[list[float]]:
    centred = []
    for i, own in enumerate(returns):
        siblings = [returns[j] for j in range(len(returns)) if j != i and groups[j] == groups[i]]
        row = []
        for k in range(len(own)):
            baseline = sum(s[min(k, len(s) - 1)] for s in siblings) / len(siblings)
            row.append(own[k] - baseline)
        centred.append(row)
    flat = [x for row in centred for x in row]
    mean = sum(flat) / len(flat)
    spread = (sum((x - mean) ** 2 for x in flat) / len(flat)) ** 0.5
    return [[max(-clip, min(clip, x / (spread + 1e-6))) for x in row] for row in centred]


@pytest.mark.parametrize(
    ("rewards", "discount", "expected"),
    [
        ([0.5, 1.0], 1.0, [1.5, 1.0]),
        ([0.2, 1.0], 0.95, [1.15, 1.0]),
        ([0.066667, 0.066667, 0.866667], 0.95, [0.9121670, 0.8900007, 0.866667]),
        ([], 0.95, []),
    ],
)
def test_returns_are_discounted_sums_of_what_follows(
    rewards: list[float], discount: float, expected: list[float]
) -> None:
    found = discounted_returns(np.array(rewards), discount)

    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("clip", [5.0, 0.7], ids=["free", "clipped"])
def test_advantages_equal_a_slow_loop(clip: float) -> None:
    rng = np.random.default_rng(0)
    returns = [rng.normal(size=int(rng.integers(1, 5))) for _ in range(12)]
    groups = [f"g{i % 3}" for i in range(12)]

    found = group_loo(returns, groups, clip=clip)

    for row, expected in zip(found, group_loo_by_loop(returns, groups, clip), strict=True):
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_equal_returns_give_no_advantage() -> None:
    returns = [np.array([0.95, 1.0]), np.array([0.95, 1.0])]

    found = group_loo(returns, ["g", "g"], clip=5.0)

    assert all(not row.any() for row in found)


def test_a_trajectory_without_siblings_has_no_advantage_and_no_influence() -> None:
    pair = [np.array([1.0]), np.array([0.0])]

    found = group_loo([*pair, np.array([100.0])], ["g", "g", "alone"], clip=5.0)

    np.testing.assert_allclose(found[0], [1.0], rtol=1e-5)
    np.testing.assert_allclose(found[1], [-1.0], rtol=1e-5)
    assert found[2].tolist() == [0.0]


def test_a_trajectory_without_steps_is_no_sibling() -> None:
    found = group_loo([np.array([1.0]), np.zeros(0)], ["g", "g"], clip=5.0)

    assert [row.tolist() for row in found] == [[0.0], []]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leave_one_out_keeps_the_whole_gradient_unlike_the_own_mean(size: int) -> None:
    """Exact enumeration over all groups of a two-action bandit with rewards 1 and 0."""
    probability, rewards = 0.3, (0.0, 1.0)
    scores = (-probability, 1 - probability)
    exact = probability * scores[1] * rewards[1]

    with_loo, with_mean = 0.0, 0.0
    for choices in itertools.product((0, 1), repeat=size):
        chance = np.prod([probability if c else 1 - probability for c in choices])
        got = [rewards[c] for c in choices]
        for i, choice in enumerate(choices):
            others = (sum(got) - got[i]) / (size - 1)
            with_loo += chance * (got[i] - others) * scores[choice] / size
            with_mean += chance * (got[i] - sum(got) / size) * scores[choice] / size

    assert with_loo / exact == pytest.approx(1.0)
    assert with_mean / exact == pytest.approx((size - 1) / size)
