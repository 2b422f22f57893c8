"""Doors and lines for asyncio; ``common.wire.sockets`` sets their sockets up."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.places import Address
from common.wire.codec import Buffer
from common.wire.parcels import Parcel, read_parcel
from common.wire.parts import cut


class AsyncDoor:
    """A ROUTER to which only members get through, for asyncio; what cannot be sent is dropped."""

    def __init__(
        self, socket: Any, address: Address, longest: int, admit: Callable[[str, str], None]
    ) -> None:
        """Made by ``Wire.listen_async``; ``address`` is where it really listens.

        ``admit`` lets whoever proves a key in from now on, under a name; it raises ValueError for
        what is no key.
        """
        self.address = address
        self.admit = admit
        self._longest = longest
        self._socket = socket

    async def receive(self) -> Parcel:
        """The next message."""
        return read_parcel(await self._socket.recv_multipart(copy=False), self._longest)

    async def send(self, identity: bytes, frames: Sequence[Buffer]) -> None:
        """Send to the peer of that identity; nothing where the door is closed."""
        if self._socket.closed:
            return
        await self._socket.send_multipart([identity, *frames], copy=False)

    def close(self) -> None:
        """Close it; what was not sent is lost."""
        self._socket.close(linger=0)


class AsyncLine:
    """A DEALER to a door, for asyncio."""

    def __init__(self, socket: Any, losses: Any, *, refusals: int) -> None:
        """Made by ``Wire.connect_async``; ``losses`` tells of lost connections, if it is watched.

        ``refusals`` are those events after which ZeroMQ may not connect again.
        """
        self._refusals = refusals
        self._socket = socket
        self._losses = losses

    async def lost(self) -> bool:
        """Return when the connection breaks or is refused, or has since; whether it was refused.

        One that breaks is made again; one that was refused is not: another line has to be made.
        """
        event, *_ = await self._losses.recv_multipart()
        return bool(int.from_bytes(event[:2], sys.byteorder) & self._refusals)

    async def send(self, frames: Sequence[Buffer]) -> None:
        """Send, as soon as there is a connection."""
        await self._socket.send_multipart(cut(frames))

    async def receive(self) -> list[memoryview]:
        """The next message."""
        return [frame.buffer for frame in await self._socket.recv_multipart(copy=False)]

    async def is_ready(self, *, timeout_ms: int) -> bool:
        """Whether a message came within that time."""
        return bool(await self._socket.poll(timeout_ms))

    def close(self, *, linger_ms: int = 0) -> None:
        """Close it; what was not sent yet may go out for so long."""
        if self._losses is not None:
            self._socket.disable_monitor()
            self._losses.close(linger=0)
        self._socket.close(linger=linger_ms)
