"""Causal attention inside each segment of a pack, plugged into transformers' extension point.

No mask of [T, T] is ever built. On CUDA in half precision the variable-length kernels of
flash-attn, or else of torch, take the pack as it is; anywhere else segments go one by one, which
on CPU measured faster than a padded batch.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED_ATTENTION = "lzero_packed"
"""Name under which transformers finds this attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentLayout:
    """Where the S segments of a pack of T tokens lie.

    Attributes:
        lengths: S token counts, adding up to T.
        boundaries: [S + 1] int32, from 0 to T.
    """

    lengths: list[int]
    boundaries: Tensor

    @property
    def longest(self) -> int:
        """Tokens of the longest segment."""
        return max(self.lengths)


def layout_of(segment_lengths: Tensor) -> SegmentLayout:
    """Describe segments of the given lengths, [S] int64, laid end to end."""
    boundaries = torch.nn.functional.pad(segment_lengths.cumsum(0), (1, 0))
    return SegmentLayout(lengths=segment_lengths.tolist(), boundaries=boundaries.to(torch.int32))


def register_packed_attention() -> None:
    """Make PACKED_ATTENTION known to transformers; harmless when repeated.

    Without a mask function of that name, transformers builds no mask at all.
    """
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: SegmentLayout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each segment to itself, as an attention function of transformers.

    Args:
        module: the attention layer that calls.
        query: [1, heads, T, head size].
        key: [1, key heads, T, head size]; ``key heads`` divides ``heads``.
        value: as ``key``.
        attention_mask: must be None.
        layout: the segments; passed through the model's forward.
        scaling: factor of the scores; None for 1 / sqrt(head size).
        sliding_window: must not be shorter than the longest segment.

    Returns:
        [1, T, heads, head size], and None for the attention weights.

    Raises:
        ValueError: there is no layout, there is a mask, or the window would cut a segment.
    """
    if layout is None or attention_mask is not None:
        raise ValueError(f"{PACKED_ATTENTION} needs layout=SegmentLayout(...) and no mask")
    if sliding_window is not None and sliding_window < layout.longest:
        raise ValueError(
            f"a segment has {layout.longest} tokens, but the model attends only to the last "
            f"{sliding_window} (sliding_window); lower model.max_context"
        )
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        q, k, v = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
        return _varlen(q, k, v, layout, scaling).unsqueeze(0), None
    return _one_by_one(query, key, value, layout, scaling), None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scaling: float | None
) -> Tensor:
    """[T, heads, head size] in and out, by whichever variable-length kernel is installed."""
    bounds, longest = layout.boundaries, layout.longest
    if importlib.util.find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        result: Tensor = flash_attn_varlen_func(
            query, key, value, bounds, bounds, longest, longest,
            softmax_scale=scaling, causal=True,
        )  # fmt: skip
        return result
    from torch.nn.attention.varlen import varlen_attn

    attended: Tensor = varlen_attn(  # type: ignore[assignment]
        query, key, value, bounds, bounds, longest, longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return attended


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scaling: float | None
) -> Tensor:
    """[1, heads, T, head size] in, [1, T, heads, head size] out, one call per segment."""
    parts = zip(
        *(torch.split(part, layout.lengths, dim=2) for part in (query, key, value)), strict=True
    )
    grouped = query.shape[1] != key.shape[1]
    attended = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in parts
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)
