"""Conversions between the number formats of weights, on raw bits, without torch.

The process that writes checkpoints starts in a fraction of a second because it needs numpy only;
numpy has no bfloat16, so weights travel as unsigned integers of their width. Results are those of
torch, bit for bit: round to nearest, ties to even; too large becomes infinite; NaN stays NaN,
whatever its payload.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[np.unsignedinteger[Any]]
"""Bits of numbers, one unsigned integer each."""

BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1}
"""Width of a number in each format, by the names that safetensors uses."""

FORMAT_OF_DTYPE = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Formats in which weights can be exported, by the names that torch and configurations use."""

_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {
    1: np.uint8,
    2: np.uint16,
    4: np.uint32,
    8: np.uint64,
}


def raw_type(name: str) -> type[np.unsignedinteger[Any]]:
    """The unsigned integer as wide as a number of that format."""
    return _UNSIGNED[BYTES[name]]


def convert(bits: Raw, source: str, target: str) -> Raw:
    """The same numbers in another format.

    Args:
        bits: any shape, of ``raw_type(source)``.
        source: F32, BF16 or F16; anything where ``target`` is the same.
        target: F32, BF16 or F16.

    Returns:
        The same shape, of ``raw_type(target)``; ``bits`` itself where nothing changes.
    """
    if source == target:
        return bits
    single = _to_single(bits, source)
    if target == "F32":
        return single.view(np.uint32)
    if target == "BF16":
        return _to_bfloat16(single)
    with np.errstate(over="ignore"):
        return single.astype(np.float16).view(np.uint16)


def _to_single(bits: Raw, source: str) -> NDArray[np.float32]:
    if source == "BF16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if source == "F16":
        return bits.view(np.float16).astype(np.float32)
    return bits.view(np.float32)


def _to_bfloat16(single: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = single.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(single)] = 0x7FC0
    return rounded
