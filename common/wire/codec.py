"""Records to frames and back: one msgpack header, then each array as a raw frame.

Nothing is ever unpickled. Decoding checks every field against the record's type hints and raises
``ProtocolError`` on anything unexpected, so a malformed peer cannot hand us a half-made record.
"""

import dataclasses
import types
import typing
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np

from common.errors import ProtocolError
from common.wire.hosting import HostMessage
from common.wire.joining import JoinMessage
from common.wire.records import WeightManifest
from common.wire.session import Message

SCHEMA_VERSION = 8
"""Raised whenever a record changes; both sides compare it at hello."""

Record = Message | JoinMessage | HostMessage | WeightManifest
Buffer = bytes | memoryview

_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(Record)}
_DTYPES = {"int32": np.dtype(np.int32), "float32": np.dtype(np.float32)}


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
        return typing.cast(Record, _unpack(kind, body, frames))
    except Exception as error:  # hostile bytes find every exception that numpy or a record raises
        raise ProtocolError(f"malformed {kind_name}: {error}") from error


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
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
        return [len(arrays), str(value.dtype), list(value.shape)]
    if dataclasses.is_dataclass(value):
        return {f.name: _pack(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_pack(item, arrays) for item in value]
    return value


@lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _unpack(hint: Any, value: Any, frames: Sequence[Buffer]) -> Any:
    origin = typing.get_origin(hint)
    if origin is np.ndarray:
        return _array(hint, value, frames)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise ValueError(f"{hint.__name__} must have the fields {sorted(hints)}")
        return hint(**{name: _unpack(hints[name], item, frames) for name, item in value.items()})
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, frames)
    if origin is dict:
        _, item_hint = typing.get_args(hint)
        return {str(key): _unpack(item_hint, item, frames) for key, item in _map(value).items()}
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return _unpack(inner, value, frames)
    return _scalar(hint, value)


def _map(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a map, got {type(value).__name__}")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, frames: Sequence[Buffer]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_unpack(hints[0], item, frames) for item in value)
    return tuple(_unpack(hint, item, frames) for hint, item in zip(hints, value, strict=True))


def _scalar(hint: Any, value: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"expected {hint.__name__}, got {type(value).__name__}")
    return value


def _array(hint: Any, value: Any, frames: Sequence[Buffer]) -> Any:
    index, dtype_name, shape = value
    if type(shape) is not list or len(shape) != 1 or type(shape[0]) is not int:
        raise ValueError(f"arrays have one dimension, got the shape {shape!r}"[:200])
    (scalar,) = typing.get_args(typing.get_args(hint)[1])
    dtype = _DTYPES[dtype_name]
    if dtype != np.dtype(scalar):
        raise TypeError(f"expected an array of {np.dtype(scalar)}, got {dtype_name}")
    if type(index) is not int or not 1 <= index < len(frames):
        raise IndexError(f"array frame {index!r} of {len(frames) - 1}"[:200])
    array = np.frombuffer(frames[index], dtype=dtype)
    if len(array) != shape[0]:
        raise ValueError(f"expected {shape[0]} numbers in frame {index}, got {len(array)}")
    return array
