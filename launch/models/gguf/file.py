"""Opens a GGUF file: what it says of its model, and its tensors, mapped into memory.

The file may come from anybody. Its header is read by two libraries; what they raise about a file
that is cut off or no GGUF is told in one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from common.errors import InputError, MachineError

MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """One tensor of a GGUF file.

    Attributes:
        name: as llama.cpp names it.
        shape: of its numbers, slowest axis first.
        type_name: of its numbers, such as ``Q4_K`` or ``F16``.
        rows: its bits; the first axis is that of ``shape``, the last may be packed into blocks.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    rows: NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufFile:
    """What a GGUF file holds: tokenizer, metadata without the long lists, and tensors by name."""

    path: Path
    tokenizer: PreTrainedTokenizerBase
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def open_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file and map its tensors.

    Raises:
        InputError: it is missing, no GGUF, cut off, or has a tokenizer that is not known.
        MachineError: the package that reads such files is not installed.
    """
    check_magic(path)
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MachineError(
            "the package gguf is missing, which reads such files; install it with: pip install gguf"
        ) from error
    # First, because this reader stops at the end of a file whose lists would be longer.
    tokenizer = _read(path, "tokenizer", lambda: _tokenizer(path))
    reader = _read(path, "tensors", lambda: GGUFReader(path))
    return GgufFile(
        path=path,
        tokenizer=tokenizer,
        metadata=_read(path, "metadata", lambda: _metadata(reader)),
        tensors={tensor.name: _stored(tensor) for tensor in reader.tensors},
    )


def check_magic(path: Path) -> None:
    """Check that a file begins as a GGUF file does.

    Raises:
        InputError: it does not, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}; name a GGUF file") from error
    if begins != MAGIC:
        raise InputError(
            f"'{path}' is not a GGUF file: it begins with {begins!r}, expected {MAGIC!r}"
        )


def _read(path: Path, what: str, reading: Any) -> Any:
    try:
        return reading()
    except Exception as error:  # both libraries raise what numpy and struct do
        raise InputError(
            f"the {what} of '{path}' cannot be read ({type(error).__name__}: {error!s:.200}); the "
            "file is cut off, damaged or of an unknown kind: bring it again"
        ) from error


def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    folder, name = str(path.absolute().parent), path.name
    return PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=name)


def _metadata(reader: Any) -> dict[str, Any]:
    """Single values; lists (the vocabulary) are the tokenizer's."""
    from gguf import GGUFValueType

    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if field.types and field.types[0] != GGUFValueType.ARRAY
    }


def _stored(tensor: Any) -> StoredTensor:
    return StoredTensor(
        name=tensor.name,
        shape=tuple(int(size) for size in reversed(tensor.shape)),
        type_name=tensor.tensor_type.name,
        rows=np.asarray(tensor.data),
    )
