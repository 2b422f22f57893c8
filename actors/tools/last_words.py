"""The last lines that a child process writes to its standard error."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

LINES = 20
_LAST_S = 0.5
_PIECE_BYTES = 1 << 16


@asynccontextmanager
async def captured(lines: deque[str]) -> AsyncIterator[TextIO]:
    """A file for a child's standard error, whose last lines go to ``lines``, made with a bound."""
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    keeping = asyncio.create_task(_keep(reader, lines))
    try:
        with os.fdopen(write_end, "w") as file:
            yield file
    finally:
        try:
            await asyncio.wait([keeping], timeout=_LAST_S)  # for what a dead child wrote
        finally:
            keeping.cancel()
            transport.close()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping


def joined(lines: deque[str]) -> str:
    """The lines in one, short enough for a message."""
    return " | ".join(lines)[-500:]


async def _keep(reader: asyncio.StreamReader, lines: deque[str]) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        lines.extend(line for line in piece.decode("utf-8", "replace").splitlines() if line.strip())
