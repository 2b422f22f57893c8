"""Causal attention inside each segment of a pack, plugged into transformers' extension point.

No mask of [T, T] is ever built. On CUDA in half precision a variable-length kernel takes the
pack as it is: flash-attn 3 on Hopper or flash-attn 2 where installed, torch's own otherwise.
Anywhere else segments go one by one, which on CPU measured 1.2 to 2 times faster than batches of
segments of similar length, padded.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED_ATTENTION = "lzero_packed"
"""Name under which transformers finds this attention."""

Backend = Literal["flash_attn_3", "flash_attn_2", "torch_varlen", "one_by_one"]
ExchangeKeys = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentLayout:
    """Which of T queries attend to which of K keys: P pieces of both, laid end to end.

    The queries of a piece are the last tokens of its keys: query i of Q attends to the first
    K - Q + 1 + i keys of the piece. In a whole pack pieces are segments, and their keys are their
    queries; of a pack split over ranks see ``learner.context_parallel``.

    Attributes:
        lengths: P query counts, adding up to T.
        boundaries: [P + 1] int32, from 0 to T.
        key_lengths: P key counts, adding up to K, none shorter than its queries.
        key_boundaries: [P + 1] int32, from 0 to K.
        exchange_keys: makes keys and values of [1, heads, K, head size] out of the caller's own
            of [1, heads, T, head size]; None where they are the same.
    """

    lengths: list[int]
    boundaries: Tensor
    key_lengths: list[int]
    key_boundaries: Tensor
    exchange_keys: ExchangeKeys | None = None

    @property
    def longest(self) -> int:
        """Keys of the longest piece."""
        return max(self.key_lengths)


def layout_of(segment_lengths: Tensor) -> SegmentLayout:
    """Describe whole segments of the given lengths, [S] int64, laid end to end."""
    lengths, boundaries = segment_lengths.tolist(), boundaries_of(segment_lengths)
    return SegmentLayout(
        lengths=lengths, boundaries=boundaries, key_lengths=lengths, key_boundaries=boundaries
    )


def boundaries_of(lengths: Tensor) -> Tensor:
    """[P] int64 lengths to [P + 1] int32 places where pieces begin and end."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def register_packed_attention() -> None:
    """Make PACKED_ATTENTION known to transformers; harmless when repeated.

    Without a mask function of that name, transformers builds no mask at all.
    """
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def attention_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """What ``packed_attention`` runs for tensors of this kind."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return "one_by_one"
    if _installed("flash_attn_interface") and torch.cuda.get_device_capability(device)[0] == 9:
        return "flash_attn_3"
    return "flash_attn_2" if _installed("flash_attn") else "torch_varlen"


@cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@torch.compiler.disable  # type: ignore[untyped-decorator]
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

    Compiled layers call it as it is: the lengths of segments differ from pack to pack.

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
    if layout.exchange_keys is not None:
        key, value = layout.exchange_keys(key, value)
    backend = attention_backend(query.device, query.dtype)
    if backend == "one_by_one":
        return _one_by_one(query, key, value, layout, scaling), None
    q, k, v = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    return _varlen(q, k, v, layout, scaling, backend).unsqueeze(0), None


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    scaling: float | None,
    backend: Backend,
) -> Tensor:
    """[T, heads, head size] in and out; all kernels align queries with the last keys."""
    where = (
        layout.boundaries, layout.key_boundaries, max(layout.lengths), max(layout.key_lengths)
    )  # fmt: skip
    if backend == "torch_varlen":
        from torch.nn.attention.varlen import varlen_attn

        grouped = query.shape[1] != key.shape[1]
        attended: Any = varlen_attn(
            query, key, value, *where, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
        )
    else:
        if backend == "flash_attn_3":
            from flash_attn_interface import flash_attn_varlen_func
        else:
            from flash_attn import flash_attn_varlen_func

        attended = flash_attn_varlen_func(
            query, key, value, *where, softmax_scale=scaling, causal=True
        )
    result: Tensor = attended[0] if isinstance(attended, tuple) else attended
    return result


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, scaling: float | None
) -> Tensor:
    """[1, heads, T, head size] in, [1, T, heads, head size] out, one call per piece."""
    queries = torch.split(query, layout.lengths, dim=2)
    keys, values = (torch.split(part, layout.key_lengths, dim=2) for part in (key, value))
    grouped = query.shape[1] != key.shape[1]
    attended = [
        _attend(q, k, v, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Causal attention of queries that are the last of the keys."""
    before = key.shape[2] - query.shape[2]
    if before == 0:
        return scaled_dot_product_attention(query, key, value, is_causal=True, **options)
    every = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    return scaled_dot_product_attention(query, key, value, every.tril(before), **options)
