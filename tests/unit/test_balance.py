"""Segments are assigned to packs and ranks so that no rank waits for another."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from learner.engine.model import load_model, score_targets
from learner.packs.balance import CostModel, assign_to_ranks, cost_of_model, measure_balance
from learner.packs.packing import pack_segments, segment_of_examples
from tests.tiny_policy import make_model

QWEN3_600M = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
}


def costs_of(shares: list[list[list[int]]], costs: list[float]) -> list[list[float]]:
    return [[sum(costs[i] for i in members) for members in share] for share in shares]


def test_costs_of_a_segment_add_up() -> None:
    cost = CostModel(per_token=2.0, per_token_squared=0.5, per_target=3.0)

    assert cost.of_segment(10, 4) == 2 * 10 + 0.5 * 100 + 3 * 4
    assert cost.of_pack([10, 2], 5) == cost.of_segment(10, 4) + cost.of_segment(2, 1)


def test_cost_of_a_model_counts_its_operations() -> None:
    """Per token twice the 440 million weights of the layers; head twice 1024 x 151,936."""
    cost = cost_of_model(QWEN3_600M)

    assert cost.per_token == 2 * 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072)
    assert cost.per_token_squared == 2 * 28 * 16 * 128
    assert cost.per_target == 2 * 1024 * 151_936


def test_cost_of_a_model_is_what_the_profiler_counts(tmp_path: Path) -> None:
    """It counts attention to all keys, twice what a causal segment needs."""
    make_model(tmp_path)
    model = load_model(tmp_path)
    cost = cost_of_model(json.loads((tmp_path / "config.json").read_text()))
    segment = segment_of_examples([1] * 64, [0.0] * 40 + [1.0] * 24, name="x")
    (pack,) = pack_segments([segment], budget=64)

    by_matrices = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), by_matrices:
        score_targets(model, pack)

    expected = cost.of_segment(64, 24) + cost.per_token_squared * 64**2
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_a_config_without_head_size_and_key_heads_uses_the_defaults() -> None:
    short = {k: v for k, v in QWEN3_600M.items() if k not in ("head_dim", "num_key_value_heads")}

    assert cost_of_model(short) == cost_of_model(
        QWEN3_600M | {"head_dim": 64, "num_key_value_heads": 16}
    )


def test_balance_is_the_time_of_the_slowest_over_the_mean() -> None:
    balance = measure_balance([[6.0, 1.0], [2.0, 3.0]])

    assert balance.lockstep == pytest.approx((6 + 3) / 6)
    assert balance.ranks == pytest.approx(7 / 6)


def test_nothing_to_do_is_balanced() -> None:
    balance = measure_balance([[0.0], [0.0]])

    assert (balance.lockstep, balance.ranks) == (1.0, 1.0)


def test_one_more_pack_is_spread_over_all_ranks() -> None:
    """Thirteen tens need three packs of 50, but two ranks run four: each gets 30 or 40."""
    lengths = [10] * 13

    shares = assign_to_ranks(lengths, [10.0] * 13, budget=50, ranks=2)

    assert sorted(len(members) for share in shares for members in share) == [3, 3, 3, 4]


def test_a_costly_segment_is_run_beside_others_that_add_up_to_it() -> None:
    lengths = [100, 50, 50, 50, 50]
    costs = [float(length**2) for length in lengths]

    shares = assign_to_ranks(lengths, costs, budget=200, ranks=2)

    assert measure_balance(costs_of(shares, costs)).lockstep == pytest.approx(1.0)


def test_packs_that_cannot_be_levelled_are_run_beside_others_of_their_cost() -> None:
    """Four costly fours in packs of their own would leave no room for the seven."""
    lengths, costs = [4, 4, 4, 4, 7], [10.0, 10.0, 10.0, 10.0, 1.0]

    shares = assign_to_ranks(lengths, costs, budget=10, ranks=2)

    assert costs_of(shares, costs) == [[20.0, 0.0], [20.0, 1.0]]


def test_full_packs_are_relieved_into_empty_ones() -> None:
    """Here levelling leaves no room for the seven either, but one rank would be idle."""
    lengths, costs = [4, 4, 4, 7], [10.0, 10.0, 10.0, 1.0]

    shares = assign_to_ranks(lengths, costs, budget=10, ranks=3)

    assert costs_of(shares, costs) == [[20.0], [10.0], [1.0]]


SEGMENTS = st.lists(st.tuples(st.integers(1, 100), st.floats(0.1, 50.0)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(SEGMENTS, st.integers(1, 5))
def test_assignments_are_whole_within_budget_and_as_even_as_the_largest_allows(
    segments: list[tuple[int, float]], ranks: int
) -> None:
    lengths, costs = [s[0] for s in segments], [s[1] for s in segments]

    shares = assign_to_ranks(lengths, costs, budget=100, ranks=ranks)

    assert sorted(i for share in shares for each in share for i in each) == list(
        range(len(lengths))
    )
    assert len({len(share) for share in shares}) == 1
    assert all(sum(lengths[i] for i in each) <= 100 for share in shares for each in share)
    totals = [sum(each) for each in costs_of(shares, costs)]
    balance = measure_balance(costs_of(shares, costs))
    assert 1.0 - 1e-9 <= balance.ranks <= balance.lockstep + 1e-9
    assert balance.lockstep <= len(totals) + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 5))
def test_with_room_to_spare_packs_differ_by_no_more_than_one_segment(
    lengths: list[int], ranks: int
) -> None:
    costs = [float(length**2) for length in lengths]

    shares = assign_to_ranks(lengths, costs, budget=10_000, ranks=ranks)

    packs = [sum(costs[i] for i in each) for share in shares for each in share]
    assert max(packs) - min(packs) <= max(costs)
