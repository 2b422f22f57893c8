"""Splits the tokens of a pack over C ranks, for segments too long for the memory of one.

Every segment is cut into 2 C chunks, of which a rank takes one from the front and the matching
one from the back, so all ranks have as many tokens and as much attention to compute. Each layer
gathers keys and values of all ranks; queries, hidden states and logits stay where they are. What
comes out is known on every rank: the scores of all targets, in the order of the pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import init_device_mesh

from learner.attention import SegmentLayout, boundaries_of
from learner.packing import Pack

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextRanks:
    """The C ranks that share a pack, and the calling rank's place among them."""

    index: int
    count: int
    group: dist.ProcessGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class PackShare:
    """One rank's share of a pack: T tokens, equally many on every rank, and N of its targets.

    Fewer than 2 C tokens of filler make the shares equal; no target follows them.

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


def context_ranks(rank_index: int, num_ranks: int, count: int, device_type: str) -> ContextRanks:
    """Form groups of ``count`` neighbouring ranks; every rank must call it.

    Args:
        rank_index: the calling rank; it shares packs with the others of rank // ``count``.
        num_ranks: of the world.
        count: C.
        device_type: of the tensors to exchange.

    Raises:
        ValueError: ``count`` does not divide ``num_ranks``.
    """
    if num_ranks % count:
        raise ValueError(
            f"learner.context_parallel is {count}, which does not divide {num_ranks} ranks "
            "(learner.ranks)"
        )
    mesh = init_device_mesh(
        device_type, (num_ranks // count, count), mesh_dim_names=("data", "context")
    )
    return ContextRanks(index=rank_index % count, count=count, group=mesh.get_group("context"))


def share_of(pack: Pack, index: int, count: int) -> PackShare:
    """The share of rank ``index`` of ``count``; all ranks agree without exchanging anything.

    Args:
        pack: whole, on any device; the share is on the same.
        index: the rank's place among those that share the pack.
        count: C.
    """
    lengths = pack.segment_lengths.cpu().numpy()
    chunks = [_chunks_of(lengths, rank, count) for rank in range(count)]
    held = [_joined([np.arange(begin, end) for _, begin, end in each]) for each in chunks]
    size = max(map(len, held))
    at = np.zeros(pack.num_tokens, dtype=np.int64)
    for rank, tokens in enumerate(held):
        at[tokens] = rank * size + np.arange(len(tokens))
    own, filler = held[index], size - len(held[index])
    keys = [at[first:end] for first, _, end in chunks[index]]
    queries = [end - begin for _, begin, end in chunks[index]]
    if filler:
        queries.append(filler)
        keys.append(np.arange((index + 1) * size - filler, (index + 1) * size))
    before = at[pack.targets.cpu().numpy() - 1]
    owners, order = before // size, np.zeros(len(before), dtype=np.int64)
    for rank in range(count):
        order[owners == rank] = np.arange(np.count_nonzero(owners == rank))
    most = int(np.bincount(owners, minlength=count).max())
    return _on_device(
        pack, own, filler, queries, keys,
        predecessors=before[owners == index] - index * size,
        targets=np.flatnonzero(owners == index),
        most_targets=most,
        slots=owners * most + order,
    )  # fmt: skip


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


def _chunks_of(lengths: Int64, rank: int, count: int) -> list[tuple[int, int, int]]:
    """Of each chunk of a rank: where its segment begins, where it begins itself, where it ends.

    Which rank takes which pair rotates with the segments, so that no rank gets all the odd tokens.
    """
    chunks = []
    first = 0
    for number, length in enumerate(lengths.tolist()):
        edges = [first + length * edge // (2 * count) for edge in range(2 * count + 1)]
        pair = (rank + number) % count
        for chunk in (pair, 2 * count - 1 - pair):
            if edges[chunk] < edges[chunk + 1]:
                chunks.append((first, edges[chunk], edges[chunk + 1]))
        first += length
    return chunks


def _joined(parts: Sequence[NDArray[Any]]) -> Int64:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def layout_of_share(share: PackShare, group: dist.ProcessGroup) -> SegmentLayout:
    """How the tokens of a share attend to tokens of all shares, whose keys are gathered."""

    def exchange(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([key, value], dim=1).squeeze(0).transpose(0, 1)
        every: Tensor = _GatherTokens.apply(both, group)  # type: ignore[no-untyped-call]
        needed = every[share.key_places].transpose(0, 1).unsqueeze(0)
        keys, values = needed.chunk(2, dim=1)
        return keys, values

    return SegmentLayout(
        lengths=share.query_lengths.tolist(),
        boundaries=boundaries_of(share.query_lengths),
        key_lengths=share.key_lengths.tolist(),
        key_boundaries=boundaries_of(share.key_lengths),
        exchange_keys=exchange,
    )


class _GatherTokens(torch.autograd.Function):
    """[T, ...] of every rank to [C T, ...]; gradients are summed in float32 at the owner."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        """All ranks' tokens, by rank."""
        ctx.group = group
        return _all_gather(own, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """The sum over ranks of what each derived by this rank's tokens."""
        kind = torch.promote_types(upstream.dtype, torch.float32)
        size = upstream.shape[0] // dist.get_world_size(ctx.group)
        own = upstream.new_empty((size, *upstream.shape[1:]), dtype=kind)
        dist.reduce_scatter_tensor(own, upstream.to(kind).contiguous(), group=ctx.group)
        return own.to(upstream.dtype), None


def gather_scores(own: Tensor, share: PackShare, group: dist.ProcessGroup) -> Tensor:
    """Scores of all targets of a pack from those of each rank's share.

    Every rank of the group must go on to compute the same from the result: the gradient of a
    rank's own scores is taken from its own computation, and only the sum over ranks of what
    parameters receive is the whole gradient.

    Args:
        own: [N, ...], of the targets in the calling rank's share.
        share: of the calling rank.
        group: the ranks that share the pack.

    Returns:
        [targets of the pack, ...].
    """
    gathered: Tensor = _GatherScores.apply(own, share, group)  # type: ignore[no-untyped-call]
    return gathered


class _GatherScores(torch.autograd.Function):
    """See ``gather_scores``."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: PackShare, group: dist.ProcessGroup) -> Tensor:
        """Ranks have different numbers of targets: each fills up to the largest."""
        ctx.targets = share.targets
        padded = own.new_zeros((share.most_targets, *own.shape[1:]))
        padded[: len(own)] = own
        return _all_gather(padded, group)[share.slots]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """The rows of the rank's own targets."""
        return upstream[ctx.targets], None, None


def _all_gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    every = own.new_empty((dist.get_world_size(group) * own.shape[0], *own.shape[1:]))
    if every.numel():
        dist.all_gather_into_tensor(every, own.contiguous(), group=group)
    return every
