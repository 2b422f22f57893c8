"""Records to frames and back: one msgpack header, then each array as a raw frame.

Nothing is ever unpickled. Decoding checks every field against the record's type hints and raises
``ProtocolError`` on anything unexpected, so a malformed peer cannot hand us a half-made record.
The hints of a kind are looked through once: what they ask for is put together from readers.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any

import msgpack
import numpy as np

from common.errors import ProtocolError
from common.wire.hosting import HostMessage
from common.wire.joining import JoinMessage
from common.wire.records import WeightManifest
from common.wire.session import Message

SCHEMA_VERSION = 9
"""Raised whenever a record changes; both sides compare it at hello."""

Record = Message | JoinMessage | HostMessage | WeightManifest
Buffer = bytes | memoryview
_Reader = Callable[[Any, Sequence[Buffer]], Any]
"""What msgpack made of a field, and the frames of its arrays, to the field's value."""

T = typing.TypeVar("T")

_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(Record)}
_DTYPES = {"int32": np.dtype(np.int32), "float32": np.dtype(np.float32)}
_PLAIN = frozenset({str, int, float, bool, types.NoneType})
"""Go into the header as they are."""


def encode(record: Record) -> list[Buffer]:
    """The frames of a record: header first, then its arrays in field order."""
    arrays: list[Buffer] = []
    body = _pack(record, arrays)
    header = msgpack.packb([type(record).__name__, body], use_bin_type=True)
    return [header, *arrays]


def decode(frames: Sequence[Buffer]) -> Record:
    """The record in ``frames``; arrays are read-only views into them.

    Raises:
        ProtocolError: unknown kind, missing or extra field, wrong type, malformed array.
    """
    if not frames:
        raise ProtocolError("a message must have at least a header frame, got none")
    try:
        kind_name, body = msgpack.unpackb(frames[0], raw=False, strict_map_key=True)
        kind = _KINDS[kind_name]
    except Exception as error:  # msgpack raises many types on hostile bytes
        raise ProtocolError(f"message header cannot be read: {error!r}") from error
    try:
        return typing.cast(Record, _reader(kind)(body, frames))
    except Exception as error:  # hostile bytes find every exception that numpy or a record raises
        raise ProtocolError(f"malformed {kind_name}: {error}") from error


def record_from(kind: type[T], value: object) -> T:
    """A record without arrays from plain values, as JSON has them.

    Raises:
        ProtocolError: missing or extra field, or wrong type.
    """
    try:
        return typing.cast(T, _reader(typing.cast(Any, kind))(value, ()))
    except Exception as error:  # as in ``decode``
        raise ProtocolError(f"malformed {kind.__name__}: {error}") from error


def claim_of(frames: Sequence[Buffer]) -> tuple[str, str]:
    """Kind and ``trajectory_id`` of a message that ``decode`` refused; empty where it has none.

    A claim: whoever acts on it must check that its sender holds that lease.
    """
    try:
        kind, body = msgpack.unpackb(frames[0], raw=False, strict_map_key=True)
        trajectory_id = body.get("trajectory_id", "")
    except Exception:  # as above
        return "", ""
    return (
        kind if isinstance(kind, str) else "",
        trajectory_id if isinstance(trajectory_id, str) else "",
    )


def _pack(value: Any, arrays: list[Buffer]) -> Any:
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple:
        return [_pack(item, arrays) for item in value]
    if (names := _field_names(kind)) is not None:
        return {name: _pack(getattr(value, name), arrays) for name in names}
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
        return [len(arrays), str(value.dtype), list(value.shape)]
    return value.value if isinstance(value, StrEnum) else value


@cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Of a record; None of anything else."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _reader(hint: Any) -> _Reader:
    """What reads values of a type."""
    origin = typing.get_origin(hint)
    if origin is np.ndarray:
        return _array_reader(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_reader(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda value, frames: hint(value)
    if origin is tuple:
        return _tuple_reader(typing.get_args(hint))
    if origin is dict:
        return _map_reader(_reader(typing.get_args(hint)[1]))
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        read = _reader(inner)
        return lambda value, frames: None if value is None else read(value, frames)
    return lambda value, frames: value if type(value) is hint else _scalar(hint, value)


def _record_reader(kind: type) -> _Reader:
    """Most fields are strings and numbers, and right: which have to be read is looked up."""
    hints = typing.get_type_hints(kind)
    names = tuple(hints)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    to_read: dict[tuple[type, ...], tuple[tuple[str, _Reader], ...]] = {}
    """By the types of the values as they came, in the order of the fields."""

    def read(value: Any, frames: Sequence[Buffer]) -> Any:
        if type(value) is not dict or value.keys() != hints.keys():
            raise ValueError(f"{kind.__name__} must have the fields {sorted(hints)}")
        came = tuple([type(value[name]) for name in names])
        todo = to_read.get(came)
        if todo is None:
            todo = tuple((n, readers[n]) for n, had in zip(names, came, strict=True)
                         if not _is_as_it_should(hints[n], had))  # fmt: skip
            to_read[came] = todo
        for name, reader in todo:
            value[name] = reader(value[name], frames)
        return kind(**value)

    return read


def _is_as_it_should(hint: Any, came: type) -> bool:
    """Whether every value of that type is one of the hint's."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return came in typing.get_args(hint)
    return came is hint


def _map_reader(read: _Reader) -> _Reader:
    return lambda value, frames: {str(key): read(item, frames) for key, item in _map(value).items()}


def _map(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a map, got {type(value).__name__}")
    return value


def _tuple_reader(hints: tuple[Any, ...]) -> _Reader:
    first, *_ = readers = [_reader(hint) for hint in hints if hint is not Ellipsis]
    is_endless = hints[1:] == (Ellipsis,)

    def read(value: Any, frames: Sequence[Buffer]) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError(f"expected a list, got {type(value).__name__}")
        if is_endless:
            return tuple([first(item, frames) for item in value])
        return tuple([one(item, frames) for one, item in zip(readers, value, strict=True)])

    return read


def _scalar(hint: Any, value: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"expected {hint.__name__}, got {type(value).__name__}")
    return value


def _array_reader(hint: Any) -> _Reader:
    (scalar,) = typing.get_args(typing.get_args(hint)[1])
    expected = np.dtype(scalar)

    def read(value: Any, frames: Sequence[Buffer]) -> Any:
        index, dtype_name, shape = value
        if type(shape) is not list or len(shape) != 1 or type(shape[0]) is not int:
            raise ValueError(f"arrays have one dimension, got the shape {shape!r}"[:200])
        if _DTYPES[dtype_name] != expected:
            raise TypeError(f"expected an array of {expected}, got {dtype_name}")
        if type(index) is not int or not 1 <= index < len(frames):
            raise IndexError(f"array frame {index!r} of {len(frames) - 1}"[:200])
        array = np.frombuffer(frames[index], dtype=expected)
        if len(array) != shape[0]:
            raise ValueError(f"expected {shape[0]} numbers in frame {index}, got {len(array)}")
        return array

    return read
