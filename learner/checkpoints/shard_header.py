"""The header of a safetensors file: what lies where, for whole tensors and for pieces of them.

What comes out of ``parse_header`` can be used without further looks: every name is text, every size
a whole number, every place within the file. The bytes may come from anywhere.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learner.checkpoints.number_formats import BYTES

PIECES = "pieces"
"""Key of the file's metadata that holds shapes and places of its pieces."""

_MOST_DIMENSIONS = 16
_LARGEST = 1 << 62
"""Above what any file holds, and below what numpy counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A block of a tensor.

    Attributes:
        name: of the whole tensor.
        format: of its numbers, a key of ``learner.checkpoints.number_formats.BYTES``.
        shape: of the block.
        offset: index of the block's first number in the whole.
        whole: shape of the whole.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    whole: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the block."""
        return math.prod(self.shape) * BYTES[self.format]


def in_file_order(pieces: Sequence[Piece]) -> list[Piece]:
    """Wide numbers first, so that each begins at a multiple of its width; then by name."""
    return sorted(pieces, key=lambda piece: (-BYTES[piece.format], piece.name))


def make_header(pieces: Sequence[Piece], metadata: Mapping[str, str]) -> bytes:
    """What precedes the data, which follow in the order of ``pieces`` without gaps."""
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for piece in pieces:
        end = begin + piece.num_bytes
        table[piece.name] = {
            "dtype": piece.format,
            "shape": list(piece.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def describe_pieces(pieces: Sequence[Piece]) -> dict[str, str]:
    """The metadata of a file that holds these pieces."""
    places = {piece.name: [list(piece.whole), list(piece.offset)] for piece in pieces}
    return {PIECES: json.dumps(places, separators=(",", ":"))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a file holds.

    Attributes:
        metadata: texts about the file.
        pieces: by name.
        begins: of the data of each, bytes from the end of the header.
    """

    metadata: dict[str, str]
    pieces: dict[str, Piece]
    begins: dict[str, int]


def parse_header(text: bytes, data_bytes: int) -> Header:
    """Read a header and check it against the size of what follows.

    Args:
        text: JSON.
        data_bytes: of the file after the header.

    Raises:
        ValueError: it breaks the format; names the tensor.
    """
    table = _object(_json(text), "the header")
    metadata = _object(table.pop("__metadata__", {}), "its metadata")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not all texts")
    places = _object(_json(metadata.get(PIECES, "{}").encode()), "the table of its pieces")
    pieces: dict[str, Piece] = {}
    begins: dict[str, int] = {}
    for name, row in table.items():
        what = f"tensor {name!r:.100}"
        piece = _piece(name, _object(row, what), places.get(name), what)
        begin, end = _numbers(row.get("data_offsets"), f"{what}: data_offsets", count=2)
        if end > data_bytes:
            raise ValueError(f"it is cut off: {what} goes beyond its end")
        if end - begin != piece.num_bytes:
            raise ValueError(
                f"{what} takes {end - begin} bytes, {piece.format}{list(piece.shape)} is "
                f"{piece.num_bytes}"
            )
        pieces[name], begins[name] = piece, begin
    _check_apart(pieces, begins)
    return Header(metadata=metadata, pieces=pieces, begins=begins)


def _check_apart(pieces: Mapping[str, Piece], begins: Mapping[str, int]) -> None:
    """No two tensors lie over the same bytes; those without numbers lie nowhere."""
    end, before = 0, ""
    for name in sorted((n for n in pieces if pieces[n].num_bytes), key=begins.__getitem__):
        if begins[name] < end:
            raise ValueError(
                f"tensors {before!r:.100} and {name!r:.100} lie over the same bytes of it"
            )
        end, before = begins[name] + pieces[name].num_bytes, name


def _piece(name: str, row: dict[str, Any], place: Any, what: str) -> Piece:
    number_format = row.get("dtype")
    if not isinstance(number_format, str) or number_format not in BYTES:
        raise ValueError(
            f"{what} is of the type {number_format!r:.40}; expected one of {', '.join(BYTES)}"
        )
    shape = _numbers(row.get("shape"), f"{what}: shape")
    whole, offset = shape, (0,) * len(shape)
    if place is not None:
        if not isinstance(place, list) or len(place) != 2:
            raise ValueError(f"{what}: the place of its piece is {place!r:.80}")
        whole, offset = (_numbers(p, f"{what}: its piece", count=len(shape)) for p in place)
        if any(o + n > w for o, n, w in zip(offset, shape, whole, strict=True)):
            raise ValueError(f"{what}: its piece goes beyond the whole of shape {list(whole)}")
    if math.prod(max(1, size) for size in whole) >= _LARGEST:
        raise ValueError(f"{what} is of the shape {list(whole)!r:.80}: more than any file holds")
    return Piece(name=name, format=number_format, shape=shape, offset=offset, whole=whole)


def _numbers(value: Any, what: str, *, count: int | None = None) -> tuple[int, ...]:
    """Whole numbers from 0, as many as ``count`` says."""
    fits = (
        isinstance(value, list)
        and len(value) <= _MOST_DIMENSIONS
        and count in (None, len(value))
        and all(type(n) is int and n >= 0 for n in value)
    )
    if not fits:
        raise ValueError(f"{what} is {value!r:.80}")
    return tuple(value)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the header is nested too deeply") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object but {value!r:.80}")
    return value
