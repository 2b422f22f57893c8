"""Frames between host and kernel; what a kernel sends is untrusted.

A frame is a 4 byte big-endian length and that much msgpack; see ``sandboxed/serve.py`` for the
messages. Anything else than the messages below is a violation and ends the kernel.
"""

import struct
from dataclasses import dataclass
from typing import Any

import msgpack

from actors.kernels.sandboxed.bounded import MOST_ARGUMENTS, MOST_NAME, unpack

_HEADER = struct.Struct(">I")
_MAX_CODE = 255


class FrameError(Exception):
    """The kernel sent something that the protocol does not know; it must be killed."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The kernel can run cells."""


@dataclass(frozen=True, slots=True)
class Done:
    """A cell ended."""

    cell: int
    failed: bool
    output: str
    dropped: int
    error_name: str | None
    outputs: int


@dataclass(frozen=True, slots=True)
class Filed:
    """A piece of a file was written, or why not."""

    problem: str | None


@dataclass(frozen=True, slots=True)
class Exited:
    """The kernel's process ended: its exit code, or minus the signal that killed it."""

    code: int


@dataclass(frozen=True, slots=True)
class Call:
    """A cell calls a tool; the numbers of calls out of its other threads are negative."""

    number: int
    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def alone(self) -> bool:
        """Whether the cell itself calls and waits, as far as the notebook tells."""
        return self.number > 0


Message = Ready | Done | Filed | Exited | Call


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameBudget:
    """How much a kernel may send from the start of one cell to the start of the next."""

    frame_bytes: int = 1 << 20
    total_bytes: int = 16 << 20
    frames: int = 4096
    values: int = 1 << 18

    @classmethod
    def for_output(cls, output_bytes: int) -> "FrameBudget":
        """Room for cells that may show ``output_bytes``, in the worst encoding."""
        default, shown = cls(), 8 * output_bytes
        return cls(
            frame_bytes=max(default.frame_bytes, shown), total_bytes=default.total_bytes + shown
        )


class FrameReader:
    """Cuts a byte stream into messages within a budget. Pure: no I/O."""

    def __init__(self, budget: FrameBudget) -> None:
        """Start with an empty buffer and a full budget."""
        self._budget = budget
        self._buffer = bytearray()
        self.renew()

    def renew(self) -> None:
        """Start the budget of the next cell."""
        self._bytes_left = self._budget.total_bytes
        self._frames_left = self._budget.frames
        self._values_left = self._budget.values

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by ``data``.

        Raises:
            FrameError: too much, too large, or not a message.
        """
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise FrameError(f"more than {self._budget.total_bytes} bytes in one cell")
        self._buffer += data
        messages: list[Message] = []
        while (body := self._next_body()) is not None:
            messages.append(self._decode(body))
        return messages

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer)
        if length > self._budget.frame_bytes:
            raise FrameError(f"frame of {length} bytes, limit {self._budget.frame_bytes}")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        self._frames_left -= 1
        if self._frames_left < 0:
            raise FrameError(f"more than {self._budget.frames} frames in one cell")
        body = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return body

    def _decode(self, body: bytes) -> Message:
        try:
            message, values = unpack(body)
        except Exception as error:  # msgpack raises many kinds; all mean the same here
            raise FrameError(f"not msgpack of ours: {type(error).__name__}: {error}") from error
        self._values_left -= values
        if self._values_left < 0:
            raise FrameError(f"more than {self._budget.values} values in one cell")
        return _message(message)


def encode(message: list[Any]) -> bytes:
    """One frame, to be sent to the kernel.

    Raises:
        TypeError, ValueError, OverflowError: msgpack cannot encode it.
    """
    body: bytes = msgpack.packb(message, use_bin_type=True)
    return _HEADER.pack(len(body)) + body


def _message(message: Any) -> Message:
    match message:
        case ["ready"]:
            return Ready()
        case [
            "done",
            cell,
            "ok" | "error" as status,
            str(output),
            dropped,
            name,
            outputs,
        ] if _is_name(name) and all(_is_whole(n, least=0) for n in (cell, dropped, outputs)):
            return Done(cell, status == "error", output, dropped, name, outputs)
        case ["filed", problem] if _is_name(problem):
            return Filed(problem)
        case ["exited", code] if _is_whole(code, least=-_MAX_CODE) and code <= _MAX_CODE:
            return Exited(code)
        case ["call", number, str(name), list(arguments), dict(keywords)] if (
            _is_whole(number)
            and len(name) <= MOST_NAME
            and len(arguments) + len(keywords) <= MOST_ARGUMENTS
            and all(isinstance(key, str) for key in keywords)
        ):
            return Call(number, name, tuple(arguments), keywords)
    raise FrameError("not a message of this protocol")


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= MOST_NAME)


def _is_whole(value: Any, *, least: int = -(2**63)) -> bool:
    """Whether it is a whole number; True and False are none, wherever they go from here."""
    return type(value) is int and value >= least
