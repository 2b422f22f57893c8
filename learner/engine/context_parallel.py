"""Splits the tokens of a pack over C ranks, for segments too long for the memory of one.

Who takes which tokens is settled in ``context_shares``. Each layer gathers keys and values of all
ranks; queries, hidden states and logits stay where they are. What comes out is known on
every rank: the scores of all targets, in the order of the pack.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import init_device_mesh

from learner.engine.attention import SegmentLayout, boundaries_of
from learner.engine.context_shares import PackShare


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextRanks:
    """The C ranks that share a pack, and the calling rank's place among them."""

    index: int
    count: int
    group: dist.ProcessGroup


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
