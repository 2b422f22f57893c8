"""Passes on what the user's code prints in a judge process, up to a limit.

A term that prints at every call would otherwise fill the log of its actor, and with it the disk.

consumes   a pipe that is standard output and error of one process
produces   the same on the standard error of the actor, then one line that says where it ended
waits for  nothing: the pipe is read as it fills, so that whoever prints never waits either
"""

import asyncio
import contextlib
import os

from common.visible import visible

MAX_PRINTED_BYTES = 64 << 10
"""Of one process, in its whole life."""

_CHUNK = 1 << 16
_STANDARD_ERROR = 2


class JudgeOutput:
    """Reads the pipe of one process while the event loop runs."""

    def __init__(self, pipe: int) -> None:
        """``pipe`` is closed with it."""
        os.set_blocking(pipe, False)
        self._pipe, self._left = pipe, MAX_PRINTED_BYTES
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._read)
        self._is_open = True

    def close(self) -> None:
        """Pass on what was printed last, and close the pipe."""
        while self._is_open and self._left > 0 and self._read():
            pass
        self._end()

    def _read(self) -> bool:
        """Take one piece; whether there was one."""
        try:
            piece = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        if not piece:
            self._end()
        elif self._left > 0:
            self._pass_on(piece)
        return bool(piece)

    def _pass_on(self, piece: bytes) -> None:
        text = visible(piece[: self._left].decode("utf-8", "replace"))
        self._left -= len(piece)
        if self._left <= 0:
            text += (
                f"\n[a judge process of rewards printed {MAX_PRINTED_BYTES >> 10} KiB: "
                "the rest is dropped]\n"
            )
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, text.encode())

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
