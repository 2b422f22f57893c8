"""Hands the packs of rank 0 to the other ranks as raw tensors, without pickle."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from learner.objectives.sampled import Normalisers
from learner.packs.packing import Pack

_INTEGERS = ("token_ids", "position_ids", "segment_lengths", "targets", "action_ids", "versions")
_FLOATS = ("behaviour_logprobs", "weights")
_NOTHING = Normalisers(tokens=0, actions=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One rank's part of an optimizer step.

    Attributes:
        packs: as many as every other rank has.
        advantages: [A] float32, of all actions of the batch.
        version: of the weights being trained.
        normalisers: over all ranks; of 0 if there is nothing to learn.
    """

    packs: list[Pack]
    advantages: Tensor
    version: int
    normalisers: Normalisers


def share_work(
    packs_by_rank: Sequence[list[Pack]] | None,
    advantages: Tensor | None,
    *,
    version: int = 0,
    normalisers: Normalisers = _NOTHING,
    place: tuple[int, int] | None = None,
) -> Work:
    """Broadcast from rank 0; every rank must call it, the others with None.

    Args:
        packs_by_rank: on rank 0, equally many packs for each part, on CPU.
        advantages: on rank 0, [A] float32.
        version: read on rank 0 only.
        normalisers: read on rank 0 only.
        place: which part is the calling rank's, and of how many; its place among all ranks unless
            ranks share packs.

    Returns:
        The calling rank's part.
    """
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    if packs_by_rank is not None and advantages is not None and ranks == 1:
        return Work(
            packs=list(packs_by_rank[0]),
            advantages=advantages,
            version=version,
            normalisers=normalisers,
        )
    flat = [pack for packs in packs_by_rank or [] for pack in packs]
    size = 0 if advantages is None else len(advantages)
    counts = [version, normalisers.tokens, normalisers.actions, size, len(flat)]
    version, tokens, actions, size, count = _broadcast(torch.tensor(counts), 5).tolist()
    shapes = _broadcast(_joined([torch.tensor(_shape(pack)) for pack in flat]), 3 * count)
    per_pack: list[list[int]] = shapes.view(-1, 3).tolist()
    lengths = [_lengths(*shape) for shape in per_pack]
    integers = _broadcast(
        _joined([getattr(pack, name) for pack in flat for name in _INTEGERS]),
        sum(length for each in lengths for length in each),
    )
    floats = _broadcast(
        _joined([getattr(pack, name) for pack in flat for name in _FLOATS], torch.float32),
        sum(2 * shape[2] for shape in per_pack),
    )
    everyone = _broadcast(_joined([advantages], torch.float32), size)
    packs = _take_apart(integers, floats, per_pack)
    part, parts = place or (dist.get_rank(), ranks)
    share = count // parts
    mine = part * share
    return Work(
        packs=packs[mine : mine + share],
        advantages=everyone,
        version=version,
        normalisers=Normalisers(tokens=tokens, actions=actions),
    )


def _shape(pack: Pack) -> list[int]:
    return [pack.num_tokens, len(pack.segment_lengths), pack.num_targets]


def _lengths(tokens: int, segments: int, targets: int) -> list[int]:
    """Lengths of the tensors of _INTEGERS."""
    return [tokens, tokens, segments, targets, targets, targets]


def _take_apart(integers: Tensor, floats: Tensor, shapes: list[list[int]]) -> list[Pack]:
    whole = torch.split(integers, [n for shape in shapes for n in _lengths(*shape)])
    real = torch.split(floats, [n for shape in shapes for n in (shape[2], shape[2])])
    packs = []
    for number in range(len(shapes)):
        fields = dict(zip(_INTEGERS, whole[6 * number : 6 * number + 6], strict=True))
        fields |= zip(_FLOATS, real[2 * number : 2 * number + 2], strict=True)
        packs.append(Pack(**fields))
    return packs


def _joined(parts: Sequence[Tensor | None], dtype: torch.dtype = torch.int64) -> Tensor:
    """All parts that exist, one after another; empty on the ranks that only receive."""
    return torch.cat([torch.empty(0, dtype=dtype), *(part for part in parts if part is not None)])


def _broadcast(mine: Tensor, length: int) -> Tensor:
    """``mine`` of rank 0, which has ``length`` numbers, on every rank."""
    buffer = mine if dist.get_rank() == 0 else torch.empty(length, dtype=mine.dtype)
    if length:
        dist.broadcast(buffer, src=0)
    return buffer
