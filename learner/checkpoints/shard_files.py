"""Tensors in safetensors files, whole or in pieces, written and read without torch.

A sharded state is one file per rank, ``rank-00003.safetensors``. The metadata of a file say for
each of its tensors the shape of the whole and where the piece begins, so that any process can put
together any region of any tensor, whatever the number of ranks was.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from learner.checkpoints.number_formats import BYTES, Raw, raw_type

PIECES = "pieces"
"""Key of the file's metadata that holds shapes and places of its pieces."""

_MAX_HEADER = 100_000_000


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


class TensorFile:
    """One safetensors file, mapped into memory.

    Raises:
        InputError: it is missing, cut off, or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        """Read the header."""
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            (length,) = struct.unpack("<Q", self._bytes[:8].tobytes())
            if length > min(_MAX_HEADER, len(self._bytes)):
                raise ValueError(f"its header would have {length} bytes")
            table = json.loads(self._bytes[8 : 8 + length].tobytes())
            self.metadata: dict[str, str] = table.pop("__metadata__", {})
            self._ranges = {name: tuple(row["data_offsets"]) for name, row in table.items()}
            places = json.loads(self.metadata.get(PIECES, "{}"))
            self.pieces = {name: _piece(name, row, places) for name, row in table.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise InputError(f"'{path}' is not a readable safetensors file: {error}") from error
        self._begin = 8 + length

    def read(self, name: str) -> Raw:
        """The bits of one tensor of the file, in its shape; a view of the mapped file."""
        piece = self.pieces[name]
        begin, end = self._ranges[name]
        if self._begin + end > len(self._bytes) or end - begin != piece.num_bytes:
            raise InputError(f"'{self.path}' is cut off: tensor '{name}' goes beyond its end")
        data = self._bytes[self._begin + begin : self._begin + end]
        return data.view(raw_type(piece.format)).reshape(piece.shape)


def _piece(name: str, row: Mapping[str, Any], places: Mapping[str, Any]) -> Piece:
    shape = tuple(row["shape"])
    whole, offset = places.get(name, (shape, (0,) * len(shape)))
    return Piece(
        name=name,
        format=str(row["dtype"]),
        shape=shape,
        offset=tuple(offset),
        whole=tuple(whole),
    )


class TensorFolder:
    """All ``*.safetensors`` files of a folder as one set of tensors, pieces put together."""

    def __init__(self, folder: Path) -> None:
        """Read all headers.

        Raises:
            InputError: there is no such file, or one cannot be read.
        """
        self.folder = folder
        files = [TensorFile(path) for path in sorted(folder.glob("*.safetensors"))]
        if not files:
            raise InputError(f"folder '{folder}' holds no *.safetensors files")
        self._pieces: dict[str, list[tuple[TensorFile, Piece]]] = {}
        for file in files:
            for name, piece in file.pieces.items():
                self._pieces.setdefault(name, []).append((file, piece))

    def names(self) -> list[str]:
        """Of all tensors, sorted."""
        return sorted(self._pieces)

    def whole(self, name: str) -> Piece:
        """Format and shape of a whole tensor.

        Raises:
            InputError: there is none of that name.
        """
        piece = self._find(name)[0][1]
        return Piece(
            name=name,
            format=piece.format,
            shape=piece.whole,
            offset=(0,) * len(piece.whole),
            whole=piece.whole,
        )

    def read(self, name: str, offset: Sequence[int], shape: Sequence[int]) -> Raw:
        """The bits of a region of a tensor, a copy.

        Raises:
            InputError: the files do not hold all of it.
        """
        pieces = self._find(name)
        region = np.empty(tuple(shape), dtype=raw_type(pieces[0][1].format))
        filled = 0
        for file, piece in pieces:
            common = _overlap(offset, shape, piece.offset, piece.shape)
            if common is not None:
                into, out_of = common
                block = file.read(name)[out_of]
                region[into] = block
                filled += block.size
        if filled != region.size:
            raise InputError(
                f"tensor '{name}' in '{self.folder}' is incomplete: of {region.size} numbers from "
                f"{list(offset)} on, the files hold {filled}"
            )
        return region

    def blocks(self, name: str, limit_bytes: int) -> Iterator[Raw]:
        """The bits of a whole tensor in order, in blocks of rows of about ``limit_bytes``."""
        whole = self.whole(name)
        if not whole.shape or whole.num_bytes <= limit_bytes:
            yield self.read(name, whole.offset, whole.shape)
            return
        rows = max(1, limit_bytes * whole.shape[0] // whole.num_bytes)
        for first in range(0, whole.shape[0], rows):
            count = min(rows, whole.shape[0] - first)
            yield self.read(name, (first, *whole.offset[1:]), (count, *whole.shape[1:]))

    def _find(self, name: str) -> list[tuple[TensorFile, Piece]]:
        if name not in self._pieces:
            raise InputError(f"'{self.folder}' holds no tensor '{name}'")
        return self._pieces[name]


def _overlap(
    offset: Sequence[int], shape: Sequence[int], other: Sequence[int], other_shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Where two blocks meet, as slices of the first and of the second; None if they do not."""
    into, out_of = [], []
    for a, n, b, m in zip(offset, shape, other, other_shape, strict=True):
        first, last = max(a, b), min(a + n, b + m)
        if first >= last:
            return None
        into.append(slice(first - a, last - a))
        out_of.append(slice(first - b, last - b))
    return tuple(into), tuple(out_of)
