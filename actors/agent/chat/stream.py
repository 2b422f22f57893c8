"""Reads the server-sent events of a streamed answer, whatever is in them.

One piece that cannot be read costs that piece and not the answer.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2

log = logging.getLogger(__name__)

_END = "[DONE]"
_DRAIN_S = 0.2


class BrokenStreamError(Exception):
    """A stream ended early; the answer can be asked for again."""


async def read_stream(response: httpx2.Response) -> AsyncIterator[Any]:
    """The JSON values of a streamed answer; the client library gives up at the first odd one.

    Raises:
        BrokenStreamError: the connection failed, or was silent for too long.
    """
    received = response.aiter_bytes()
    try:
        async for chunk in read_chunks(received):
            yield chunk
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise BrokenStreamError(f"{type(error).__name__}: {error}") from error
    # A connection is used again only when it was read to its end.
    with contextlib.suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in received:
                pass


async def read_chunks(received: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The JSON values of a stream up to its end; what is none is left out, with one warning.

    Args:
        received: the body as it comes, cut anywhere.
    """
    skipped = 0
    async for data in _events(received):
        if data.startswith(_END):
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            skipped += 1
            if skipped == 1:
                what = f"{type(error).__name__}: {error}"
                log.warning("piece of a stream left out reason=%s piece=%.80r", what, data)
            continue
        yield chunk


def chunks_in(text: str) -> list[Any]:
    """The same of a body that came whole, without a warning."""
    chunks = []
    for line in text.splitlines():
        try:
            chunks.append(json.loads(line.removeprefix("data:")))
        except (ValueError, RecursionError):
            continue
    return chunks


async def _events(received: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The data of each event."""
    data: list[str] = []
    async for line in _lines(received):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


async def _lines(received: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Lines without their ends: of bytes, as a text has more line ends than the format."""
    rest = bytearray()
    async for piece in received:
        rest += piece
        if b"\n" not in piece and b"\r" not in piece:
            continue
        *lines, last = bytes(rest).splitlines(keepends=True)
        if last.endswith(b"\n"):  # one that ends with "\r" may go on with "\n"
            lines.append(last)
            last = b""
        rest = bytearray(last)
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r\n")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r\n")
