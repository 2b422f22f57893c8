"""The kernel's end of its socket: framed messages, and tool calls that block the calling thread.

A frame is a 4 byte big-endian length and that much msgpack. The notebook's threads share the
socket without a reader thread of its own: whoever waits for something reads for all (leader and
followers). Interrupts (SIGINT) only strike outside of shielded sections, so no frame is torn.
"""

import itertools
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgpack

from actors.kernels.sandboxed.bounded import MOST_ARGUMENTS, MOST_VALUES, unpack

HEADER = struct.Struct(">I")
"""Length of a frame's body."""
_READ_BYTES = 1 << 16
MOST_CALL_BYTES = (1 << 20) - 1024
"""Arguments of one call; below the largest frame that the host takes."""
_MOST_CALLS = 3000
_MOST_BYTES = 12 << 20
_MOST_VALUES = 200_000
"""Of all calls of a cell; below what ends the kernel."""


class ToolError(Exception):
    """A tool failed on the host in a way that is none of the usual exceptions."""


_EXCEPTIONS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (ValueError, TypeError, KeyError, TimeoutError, PermissionError)
}


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt while a cell runs and no shielded section is entered."""

    def __init__(self) -> None:
        """Start out with no cell running."""
        self._running = False
        self._shields = 0
        self._pending = False

    def install(self) -> None:
        """(Re)install the handler; user code may have replaced it."""
        signal.signal(signal.SIGINT, self._handle)

    def begin(self) -> None:
        """A cell starts: interrupts count from here."""
        self._pending = False
        self._running = True

    def end(self) -> None:
        """The cell ended: interrupts are ignored from here."""
        self._running = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Put interrupts off until the outermost shield is left; only for the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        self._strike_pending()

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """Let interrupts strike inside a shielded section, while waiting."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        held, self._shields = self._shields, 0
        try:
            self._strike_pending()
            yield
        finally:
            self._shields = held

    def _strike_pending(self) -> None:
        if self._pending and self._shields == 0:
            self._pending = False
            if self._running:
                raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._running:
            return
        if self._shields:
            self._pending = True
            return
        raise KeyboardInterrupt


class MaskedInterrupts(Interrupts):
    """The same for a process with SIGINT handlers of its own: blocks the signal instead."""

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Block SIGINT in this thread until the outermost shield is left."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """Let SIGINT strike inside a shielded section, while waiting."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Channel:
    """Frames over one connected unix stream socket, shared by all threads of the notebook."""

    def __init__(self, connection: socket.socket, interrupts: Interrupts) -> None:
        """Take over ``connection``; it must be blocking."""
        self._socket = connection
        self._interrupts = interrupts
        self._owner = os.getpid()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._unpacked = bytearray()
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._reading = False
        self._numbers = itertools.count(1)
        self._answers: dict[int, list[Any] | None] = {}
        self._requests: list[list[Any]] = []
        self._calls = self._bytes = self._values = 0

    def renew(self) -> None:
        """A cell begins: it may call tools as often as any."""
        self._calls = self._bytes = self._values = 0

    @property
    def usable(self) -> bool:
        """False in processes that a cell forked; they must leave the socket alone."""
        return os.getpid() == self._owner

    def send(self, message: list[Any]) -> None:
        """Send one message whole."""
        self._send(msgpack.packb(message, use_bin_type=True))

    def _send(self, body: bytes) -> None:
        with self._interrupts.shielded(), self._sending:
            self._socket.sendall(HEADER.pack(len(body)) + body)

    def next_request(self) -> list[Any]:
        """Wait for the host's next message that is no answer to a tool call."""
        self._wait_until(lambda: bool(self._requests))
        return self._requests.pop(0)

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Run a tool on the host and wait for its result.

        Raises:
            ToolError: or the exception that the tool raised, if it is a usual one.
            RuntimeError: called from a process that a cell forked, or far too often in one cell.
            TypeError, ValueError: the arguments cannot be sent, or are too large.
        """
        if not self.usable:
            raise RuntimeError(f"{name}() works only in the notebook's own process")
        number = next(self._numbers)
        if threading.current_thread() is not threading.main_thread():
            number = -number  # the cell may go on meanwhile
        body, values = pack_call(number, name, arguments, keywords)
        self._count(len(body), values)
        self._answers[number] = None
        try:
            self._send(body)
            self._wait_until(lambda: self._answers[number] is not None)
            answer = self._answers[number]
        finally:
            self._answers.pop(number, None)
        return _unwrap(answer or [])

    def _count(self, size: int, values: int) -> None:
        """Refuse what the host would end the kernel for."""
        size, values = self._bytes + size, self._values + values
        if self._calls >= _MOST_CALLS or size > _MOST_BYTES or values > _MOST_VALUES:
            raise RuntimeError(
                f"no more than {_MOST_CALLS} tool calls, {_MOST_BYTES} bytes and {_MOST_VALUES} "
                "values in one cell"
            )
        self._calls, self._bytes, self._values = self._calls + 1, size, values

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        with self._interrupts.shielded(), self._changed:
            while not ready():
                if self._reading:
                    with self._interrupts.exposed():
                        self._changed.wait()
                else:
                    self._lead()

    def _lead(self) -> None:
        """Read once for everyone; enters and leaves with ``_changed`` held."""
        self._reading = True
        self._changed.release()
        try:
            with self._interrupts.exposed():
                self._poll.poll()
            messages = self._receive()
        except BaseException:
            messages = []
            raise
        finally:
            self._changed.acquire()
            self._reading = False
            for message in messages:
                self._dispatch(message)
            self._changed.notify_all()

    def _receive(self) -> list[list[Any]]:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            os._exit(0)
        self._unpacked += data
        messages = []
        while len(self._unpacked) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._unpacked)
            end = HEADER.size + length
            if len(self._unpacked) < end:
                break
            messages.append(msgpack.unpackb(self._unpacked[HEADER.size : end]))
            del self._unpacked[:end]
        return messages

    def _dispatch(self, message: list[Any]) -> None:
        if message[0] not in ("ret", "err"):
            self._requests.append(message)
        elif message[1] in self._answers:
            self._answers[message[1]] = message


def pack_call(
    number: int, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[bytes, int]:
    """The body of a call's frame, and how many values it holds; numpy's travel as plain ones.

    Raises:
        TypeError: an argument is nothing that can travel.
        ValueError: the arguments are larger or more than the host takes.
    """
    if len(arguments) + len(keywords) > MOST_ARGUMENTS:
        raise ValueError(f"{name}() takes at most {MOST_ARGUMENTS} arguments")
    message = ["call", number, name, list(arguments), keywords]
    try:
        body, values = pack(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"{name}() takes text, bytes, numbers up to 64 bits, lists, and dicts with keys of "
            f"text, at most {MOST_VALUES:,} values in all: {error}"
        ) from None
    if len(body) > MOST_CALL_BYTES:
        raise ValueError(
            f"{name}() takes at most {MOST_CALL_BYTES} bytes of arguments, got {len(body)}"
        )
    return body, values


def pack(value: Any) -> tuple[bytes, int]:
    """``value`` as msgpack that the host can read, which takes less than msgpack can write.

    Raises:
        TypeError, ValueError, OverflowError: there is none.
    """
    body: bytes = msgpack.packb(value, use_bin_type=True, default=_plain)
    return body, unpack(body)[1]


def _plain(value: Any) -> Any:
    """What stands for a value of numpy; TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _unwrap(answer: list[Any]) -> Any:
    if answer[0] == "ret":
        return answer[2]
    kind, text = answer[2], answer[3]
    known = _EXCEPTIONS.get(kind)
    if known is not None:
        raise known(text)
    raise ToolError(f"{kind}: {text}" if kind != ToolError.__name__ else text)
