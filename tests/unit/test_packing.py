"""Packs hold every segment once, whole, within the budget, and level over the ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire.records import NOT_AN_ACTION, Segment
from learner.packs.balance import CostModel
from learner.packs.packing import (
    Pack,
    PackableSegment,
    balance_of_packs,
    filler_share,
    pack_for_ranks,
    pack_segments,
    segment_of_actions,
    segment_of_examples,
)

QUADRATIC = CostModel(per_token=1.0, per_token_squared=0.1, per_target=0.5)


def segments_of(lengths: list[int]) -> list[PackableSegment]:
    """Segments whose tokens are numbered through, all but the first token learnt."""
    ends = np.cumsum(lengths)
    return [
        segment_of_examples(
            list(range(int(end) - length, int(end))),
            [0.0] + [1.0] * (length - 1),
            name=f"s{number}",
        )
        for number, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def contents(packs: list[Pack]) -> list[list[int]]:
    """Tokens of each segment of each pack."""
    return [
        part.tolist()
        for pack in packs
        for part in pack.token_ids.split(pack.segment_lengths.tolist())
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_segment_is_packed_once_and_whole(ranks: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 50).tolist()
    segments = segments_of(lengths)

    shares = pack_for_ranks(segments, budget=64, ranks=ranks)

    packs = [pack for share in shares for pack in share]
    found = [tokens for tokens in contents(packs) if tokens != [0] or lengths[0] == 1]
    assert sorted(found) == sorted(segment.token_ids.tolist() for segment in segments)
    assert all(pack.num_tokens <= 64 for pack in packs)
    assert len({len(share) for share in shares}) == 1


def test_positions_restart_and_targets_are_the_tokens_with_weight() -> None:
    segments = segments_of([3, 2])

    (pack,) = pack_segments(segments, budget=5)

    assert pack.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert pack.segment_lengths.tolist() == [3, 2]
    assert pack.targets.tolist() == [1, 2, 4]
    assert pack.weights.tolist() == [1.0, 1.0, 1.0]


def test_ranks_get_packs_of_about_the_same_size() -> None:
    lengths = np.random.default_rng(1).integers(5, 30, 200).tolist()

    shares = pack_for_ranks(segments_of(lengths), budget=256, ranks=2)

    loads = [sum(pack.num_tokens for pack in share) for share in shares]
    assert abs(loads[0] - loads[1]) <= 0.02 * sum(loads)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=40), st.integers(1, 4))
def test_any_segments_are_packed_whole_within_the_budget(lengths: list[int], ranks: int) -> None:
    segments = segments_of(lengths)

    shares = pack_for_ranks(segments, budget=64, ranks=ranks, cost=QUADRATIC)

    packs = [pack for share in shares for pack in share]
    found = [each for pack in packs if not pack.is_filler for each in contents([pack])]
    expected = [s.token_ids.tolist() for s in segments if len(s) > 1]
    assert sorted(each for each in found if len(each) > 1) == sorted(expected)
    assert all(pack.num_tokens <= 64 for pack in packs)
    assert len({len(share) for share in shares}) == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_lengths_a_hundredfold_apart_leave_no_padding_and_no_rank_idle(
    seed: int, ranks: int
) -> None:
    """Log-normal lengths of 100 to 10,000 tokens; attention costs a long one twice its share."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(1000), 1.0, 510), 100, 10_000)
    lengths = [100, 10_000, *lengths.astype(int).tolist()]
    cost = CostModel(per_token=1.0, per_token_squared=1e-4)

    shares = pack_for_ranks(segments_of(lengths), budget=16_384, ranks=ranks, cost=cost)

    balance = balance_of_packs(shares, cost)
    assert max(lengths) == 100 * min(lengths)
    assert filler_share(pack for share in shares for pack in share) < 0.02
    assert 1.0 <= balance.ranks <= balance.lockstep < 1.02
    by_tokens = pack_for_ranks(segments_of(lengths), budget=16_384, ranks=ranks)
    assert balance.lockstep < balance_of_packs(by_tokens, cost).lockstep


def test_few_segments_leave_fillers_without_targets() -> None:
    shares = pack_for_ranks(segments_of([4]), budget=8, ranks=3)

    assert [[pack.num_targets for pack in share] for share in shares] == [[3], [0], [0]]
    assert [share[0].num_tokens for share in shares] == [4, 1, 1]


def test_no_segments_still_give_one_pack_per_rank() -> None:
    shares = pack_for_ranks([], budget=8, ranks=2)

    assert [[pack.num_targets for pack in share] for share in shares] == [[0], [0]]


def test_a_full_budget_needs_no_more_packs_than_first_fit_decreasing() -> None:
    """Levelling alone would overflow here: 6 + 4 and 5 + 5 fit, 6 + 5 do not."""
    packs = pack_segments(segments_of([6, 5, 5, 4]), budget=10)

    assert sorted(pack.num_tokens for pack in packs) == [10, 10]


def test_a_segment_longer_than_the_budget_is_named() -> None:
    with pytest.raises(ValueError, match=r"segment 's1' has 9 tokens.* at most 8"):
        pack_segments(segments_of([3, 9]), budget=8)


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        ([], [], "has no tokens"),
        ([1, -7], [0.0, 1.0], "-7 is no id"),
        ([1, 2], [0.0, -1.0], "negative or not finite"),
        ([1, 2], [0.0, float("nan")], "negative or not finite"),
        ([1, 2], [0.0, float("inf")], "negative or not finite"),
        ([1, 2], [0.0], "differ in length: token_ids 2,.* weights 1"),
    ],
)
def test_a_segment_that_breaks_a_rule_is_named(
    ids: list[int], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=f"segment 'x'.*{message}"):
        segment_of_examples(ids, weights, name="x")


def test_a_first_token_that_is_to_be_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"segment 'x': its first token is to be learnt"):
        segment_of_examples([1, 2], [1.0, 1.0], name="x")


def test_the_filler_share_counts_tokens_of_packs_without_segments() -> None:
    shares = pack_for_ranks(segments_of([4, 1]), budget=4, ranks=3)

    packs = [pack for share in shares for pack in share]
    assert filler_share(packs[:1]) == 0.0
    assert filler_share([]) == 0.0
    assert filler_share(pack_for_ranks(segments_of([4]), budget=4, ranks=2)[1]) == 1.0


def test_sampled_segments_keep_actions_logprobs_and_versions() -> None:
    segment = Segment(
        token_ids=np.array([7, 8, 9, 10, 11], dtype=np.int32),
        action_index=np.array([NOT_AN_ACTION, 0, 0, NOT_AN_ACTION, 1], dtype=np.int32),
        behaviour_logprobs=np.array([0, -1, -2, 0, -3], dtype=np.float32),
        versions=np.array([NOT_AN_ACTION, 4, 5, NOT_AN_ACTION, 5], dtype=np.int32),
    )

    (pack,) = pack_segments([segment_of_actions(segment, name="x", first_action_id=20)], budget=8)

    assert pack.targets.tolist() == [1, 2, 4]
    assert pack.action_ids.tolist() == [20, 20, 21]
    assert pack.behaviour_logprobs.tolist() == [-1.0, -2.0, -3.0]
    assert pack.versions.tolist() == [4, 5, 5]
