"""Which of C ranks takes which tokens of a pack, so that all have as much to do.

Every segment is cut into 2 C chunks, of which a rank takes one from the front and the matching
one from the back: as many tokens for all, and as much attention to compute. A target's score is
computed where the token before it is; the target itself may be on another rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.packs.packing import Pack

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackShare:
    """One rank's share of a pack: T tokens, equally many on every rank, and N of its targets.

    At most two tokens of filler make the shares equal; no target follows them.

    Attributes:
        token_ids: [T] int64.
        position_ids: [T] int64, place in the segment.
        query_lengths: [P] int64, tokens of each chunk, adding up to T.
        key_lengths: [P] int64, tokens each chunk attends to: its segment up to its own end.
        key_places: [K] int64, where these are among the C T tokens of all ranks.
        predecessors: [N] int64, places in ``token_ids`` of the tokens before the targets; the
            target itself may be on another rank.
        targets: [N] int64, which of the pack's targets they are.
        most_targets: of any rank.
        slots: [targets of the pack] int64, where each is among the C ``most_targets`` slots of
            all ranks.
    """

    token_ids: Tensor
    position_ids: Tensor
    query_lengths: Tensor
    key_lengths: Tensor
    key_places: Tensor
    predecessors: Tensor
    targets: Tensor
    most_targets: int
    slots: Tensor


class Chunk(NamedTuple):
    """Neighbouring tokens of one segment, as places in the pack.

    Attributes:
        first: where the segment begins.
        begin: where the chunk begins.
        end: where it ends, exclusive.
    """

    first: int
    begin: int
    end: int


def share_of(pack: Pack, index: int, count: int) -> PackShare:
    """The share of rank ``index`` of ``count``; all ranks agree without exchanging anything.

    Args:
        pack: whole, on any device; the share is on the same.
        index: the rank's place among those that share the pack.
        count: C.
    """
    chunks = deal_chunks(pack.segment_lengths.tolist(), count)
    held = [_joined([np.arange(c.begin, c.end) for c in each]) for each in chunks]
    size = max(map(len, held))
    at = np.zeros(pack.num_tokens, dtype=np.int64)
    for rank, tokens in enumerate(held):
        at[tokens] = rank * size + np.arange(len(tokens))
    filler = size - len(held[index])
    queries = [c.end - c.begin for c in chunks[index]]
    keys = [at[c.first : c.end] for c in chunks[index]]
    if filler:
        queries.append(filler)
        keys.append(np.arange((index + 1) * size - filler, (index + 1) * size))
    owners, predecessors = np.divmod(at[pack.targets.cpu().numpy() - 1], size)
    most, slots = _slots(owners, count)
    return _on_device(
        pack, held[index], filler, queries, keys,
        predecessors=predecessors[owners == index],
        targets=np.flatnonzero(owners == index),
        most_targets=most,
        slots=slots,
    )  # fmt: skip


def deal_chunks(lengths: Sequence[int], count: int) -> list[list[Chunk]]:
    """Cut segments laid end to end into chunks for ``count`` ranks.

    Of each segment every rank gets a pair of chunks with the same attention to compute. Pairs
    differ by at most two tokens; larger ones go to ranks with fewer tokens so far, so that the
    ranks never differ by more than two tokens either.
    """
    dealt: list[list[Chunk]] = [[] for _ in range(count)]
    sizes = [0] * count
    first = 0
    for length in lengths:
        edges = [first + length * edge // (2 * count) for edge in range(2 * count + 1)]
        every = [Chunk(first, edges[n], edges[n + 1]) for n in range(2 * count)]
        pairs = sorted(zip(every[:count], every[: count - 1 : -1], strict=True), key=_size)
        ranks = sorted(range(count), key=lambda rank: -sizes[rank])
        for rank, pair in zip(ranks, pairs, strict=True):
            dealt[rank] += [chunk for chunk in pair if chunk.begin < chunk.end]
            sizes[rank] += _size(pair)
        first += length
    return dealt


def _size(pair: tuple[Chunk, Chunk]) -> int:
    return sum(chunk.end - chunk.begin for chunk in pair)


def _slots(owners: Int64, count: int) -> tuple[int, Int64]:
    """Most targets of a rank, and a slot for each target among as many slots for every rank."""
    most = int(np.bincount(owners, minlength=count).max())
    slots = owners * most
    for rank in range(count):
        mine = owners == rank
        slots[mine] += np.arange(np.count_nonzero(mine))
    return most, slots


def _on_device(
    pack: Pack,
    own: Int64,
    filler: int,
    queries: Sequence[int],
    keys: Sequence[Int64],
    *,
    most_targets: int,
    **places: Int64,
) -> PackShare:
    device = pack.token_ids.device
    tokens, nothing = torch.from_numpy(own).to(device), torch.zeros(filler, dtype=torch.int64)
    return PackShare(
        token_ids=torch.cat([pack.token_ids[tokens], nothing.to(device)]),
        position_ids=torch.cat([pack.position_ids[tokens], torch.arange(filler, device=device)]),
        query_lengths=torch.tensor(queries, dtype=torch.int64, device=device),
        key_lengths=torch.tensor([len(k) for k in keys], dtype=torch.int64, device=device),
        key_places=torch.from_numpy(_joined(keys)).to(device),
        most_targets=most_targets,
        **{name: torch.from_numpy(value).to(device) for name, value in places.items()},
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Int64:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
