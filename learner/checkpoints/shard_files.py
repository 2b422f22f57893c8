"""Tensors in safetensors files, whole or in pieces, written and read without torch.

A sharded state is one file per rank, ``rank-00003.safetensors``. The metadata of a file say for
each of its tensors the shape of the whole and where the piece begins, so that any process can put
together any region of any tensor, whatever the number of ranks was.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.errors import InputError
from learner.checkpoints.number_formats import Raw, raw_type
from learner.checkpoints.shard_header import Piece, parse_header

_MAX_HEADER = 100_000_000


class TensorFile:
    """One safetensors file, mapped into memory.

    Raises:
        InputError: it is missing, cut off, or no such file; names the file, and the tensor.
    """

    def __init__(self, path: Path) -> None:
        """Read the header."""
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            (length,) = struct.unpack("<Q", self._bytes[:8].tobytes())
            if length > min(_MAX_HEADER, len(self._bytes) - 8):
                raise ValueError(f"its header would have {length} bytes")
            self._begin = 8 + length
            text = self._bytes[8 : self._begin].tobytes()
            header = parse_header(text, len(self._bytes) - self._begin)
        except (OSError, ValueError, struct.error) as error:
            raise InputError(f"'{path}' is not a readable safetensors file: {error}") from error
        self.metadata, self.pieces = header.metadata, header.pieces
        self._begins = header.begins

    def read(self, name: str) -> Raw:
        """The bits of one tensor of the file, in its shape; a view of the mapped file."""
        piece = self.pieces[name]
        begin = self._begin + self._begins[name]
        data = self._bytes[begin : begin + piece.num_bytes]
        return data.view(raw_type(piece.format)).reshape(piece.shape)


class TensorFolder:
    """``*.safetensors`` files of a folder as one set of tensors, pieces put together."""

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        """Read the headers of the files of these names, or of all.

        Raises:
            InputError: there is no such file, or one cannot be read.
        """
        self.folder = folder
        paths = (
            sorted(folder.glob("*.safetensors")) if names is None else [folder / n for n in names]
        )
        files = [TensorFile(path) for path in paths]
        if not files:
            raise InputError(f"folder '{folder}' holds no *.safetensors files")
        self._pieces: dict[str, list[tuple[TensorFile, Piece]]] = {}
        for file in files:
            for name, piece in file.pieces.items():
                self._pieces.setdefault(name, []).append((file, piece))
        for name in self._pieces:
            self._check_pieces(name)

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

    def _check_pieces(self, name: str) -> None:
        """Whether all pieces of a tensor are of the same whole, and enough for it."""
        pieces = [piece for _, piece in self._pieces[name]]
        if len({(piece.format, piece.whole) for piece in pieces}) > 1:
            raise InputError(f"'{self.folder}' holds pieces of different tensors '{name}'")
        held, needed = sum(math.prod(p.shape) for p in pieces), math.prod(pieces[0].whole)
        if held < needed:
            raise InputError(
                f"tensor '{name}' in '{self.folder}' is incomplete: of {needed} numbers from "
                f"{[0] * len(pieces[0].whole)} on, the files hold {held}"
            )

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
