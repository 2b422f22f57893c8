"""Shares of a pack hold every token once, in equal parts, and see exactly what they should."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.engine.context_parallel import context_ranks
from learner.engine.context_shares import deal_chunks, share_of
from learner.packs.packing import Pack, pack_segments, segment_of_examples

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def numbered_pack(lengths: list[int]) -> Pack:
    """Tokens are numbered through from 1; about half of them are targets."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(sorted(lengths, reverse=True))
    segments = [
        segment_of_examples(
            list(range(int(end - length) + 1, int(end) + 1)),
            [0.0, *rng.integers(0, 2, length - 1).tolist()],
            name="x",
        )
        for length, end in zip(sorted(lengths, reverse=True), ends, strict=True)
    ]
    (pack,) = pack_segments(segments, budget=int(ends[-1]))
    return pack


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 5))
def test_every_token_is_held_once_and_shares_are_of_one_size(
    lengths: list[int], count: int
) -> None:
    pack = numbered_pack(lengths)

    shares = [share_of(pack, index, count) for index in range(count)]

    held = torch.cat([share.token_ids for share in shares])
    assert sorted(held[held != 0].tolist()) == sorted(pack.token_ids.tolist())
    assert len({len(share.token_ids) for share in shares}) == 1
    assert all((share.token_ids == 0).sum() <= 2 for share in shares)
    positions = dict(zip(pack.token_ids.tolist(), pack.position_ids.tolist(), strict=True))
    for share in shares:
        pairs = zip(share.token_ids.tolist(), share.position_ids.tolist(), strict=True)
        assert all(place == positions[token] for token, place in pairs if token)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 5))
def test_every_token_attends_to_its_segment_up_to_itself(lengths: list[int], count: int) -> None:
    pack = numbered_pack(lengths)
    starts = (pack.token_ids - pack.position_ids).tolist()

    shares = [share_of(pack, index, count) for index in range(count)]

    everything = torch.cat([share.token_ids for share in shares])
    for share in shares:
        queries = share.token_ids.split(share.query_lengths.tolist())
        keys = everything[share.key_places].split(share.key_lengths.tolist())
        for own, seen in zip(queries, keys, strict=True):
            last = int(own[-1])
            first = starts[last - 1] if last else 0
            assert seen.tolist() == (list(range(first, last + 1)) if last else [0] * len(own))
            assert seen[-len(own) :].tolist() == own.tolist()


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 5))
def test_every_target_is_scored_where_its_predecessor_is(lengths: list[int], count: int) -> None:
    pack = numbered_pack(lengths)

    shares = [share_of(pack, index, count) for index in range(count)]

    slots = torch.full((count * shares[0].most_targets,), -1)
    for index, share in enumerate(shares):
        before = share.token_ids[share.predecessors]
        assert before.tolist() == pack.token_ids[pack.targets[share.targets] - 1].tolist()
        begin = index * share.most_targets
        slots[begin : begin + len(share.targets)] = share.targets
        assert torch.equal(share.slots, shares[0].slots)
    assert slots[shares[0].slots].tolist() == list(range(pack.num_targets))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_attention_of_a_long_segment_is_shared_evenly(count: int) -> None:
    dealt = deal_chunks([16_000, 100, 5_000], count)

    work = [
        sum(
            (c.end - c.first) * (c.end - c.first + 1)
            - (c.begin - c.first) * (c.begin - c.first + 1)
            for c in chunks
        )
        for chunks in dealt
    ]
    assert max(work) / min(work) < 1.002


def test_a_share_of_one_rank_is_the_pack() -> None:
    pack = numbered_pack([5, 3])

    share = share_of(pack, 0, 1)

    assert torch.equal(share.token_ids, pack.token_ids)
    assert torch.equal(share.predecessors, pack.targets - 1)
    assert torch.equal(share.slots, torch.arange(pack.num_targets))


def test_a_pack_without_segments_gives_every_rank_a_token() -> None:
    (pack,) = pack_segments([], budget=4)

    shares = [share_of(pack, index, 3) for index in range(3)]

    assert [len(share.token_ids) for share in shares] == [1, 1, 1]
    assert [share.most_targets for share in shares] == [0, 0, 0]


def test_ranks_that_cannot_be_grouped_are_named() -> None:
    with pytest.raises(ValueError, match=r"context_parallel is 4, which does not divide 6 ranks"):
        context_ranks(0, 6, 4, "cpu")
