"""Packs hold every segment once, whole, within the budget, and level over the ranks."""

import numpy as np
import pytest

from common.messages import NOT_AN_ACTION, Segment
from learner.packing import (
    Pack,
    PackableSegment,
    pack_for_ranks,
    pack_segments,
    segment_of_actions,
    segment_of_examples,
)


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


def test_a_first_token_that_is_to_be_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"segment 'x': its first token is to be learnt"):
        segment_of_examples([1, 2], [1.0, 1.0], name="x")


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
