"""Attention over packs by the definition, with the whole mask, for tests."""

import torch
from torch import Tensor

from learner.engine.attention import SegmentLayout, boundaries_of

HEADS, SIZE = 8, 64


def attend_by_mask(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scaling: float | None = None
) -> Tensor:
    """[1, T, heads, head size] in float64: softmax over what a block-diagonal mask allows."""
    q, k, v = (part[0].double() for part in (query, key, value))
    k, v = (part.repeat_interleave(len(q) // len(part), 0) for part in (k, v))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (q @ k.mT * scale).masked_fill(~mask_of(layout).to(q.device), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1)[None]


def mask_of(layout: SegmentLayout) -> Tensor:
    """[T, K] bool: query i of Q of a piece sees the first K - Q + 1 + i of its K keys."""
    mask = torch.zeros(sum(layout.lengths), sum(layout.key_lengths), dtype=torch.bool)
    row = column = 0
    for queries, keys in zip(layout.lengths, layout.key_lengths, strict=True):
        for i in range(queries):
            mask[row + i, column : column + keys - queries + 1 + i] = True
        row, column = row + queries, column + keys
    return mask


def layout_of_pieces(queries: list[int], keys: list[int], device: str = "cpu") -> SegmentLayout:
    """Pieces whose queries are the last of more keys."""
    boundaries = [boundaries_of(torch.tensor(each, device=device)) for each in (queries, keys)]
    return SegmentLayout(
        lengths=queries,
        boundaries=boundaries[0],
        key_lengths=keys,
        key_boundaries=boundaries[1],
    )


def random_heads(
    tokens: int, keys: int, *, key_heads: int = HEADS, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, as transformers hands them over."""
    generator = torch.Generator().manual_seed(tokens + keys)
    shapes = ((HEADS, tokens), (key_heads, keys), (key_heads, keys))
    query, key, value = (
        torch.randn(1, heads, length, SIZE, generator=generator).to(device).requires_grad_()
        for heads, length in shapes
    )
    return query, key, value
