"""Policy servers for tests of their clients: the real host in this loop, an engine by the book."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import numpy as np

from actors.hosted import HostLine
from actors.inference.host.serving import HOST_LIMITS, Host
from actors.inference.staging import StagedFiles
from common.places import Address
from common.wire.hosting import Generate, Generated, ServerLoad
from common.wire.sockets import SocketError, Wire, new_key_pair

Handler = Callable[[Generate], Awaitable[Generated]]
ASKER = new_key_pair()
"""What clients prove themselves with."""


def answer(request: Generate, *, version: int = 0) -> Generated:
    return Generated(
        number=request.number,
        token_ids=np.array([5], dtype=np.int32),
        logprobs=np.array([-0.5], dtype=np.float32),
        versions=np.array([version], dtype=np.int32),
        finish_reason="stop",
    )


class HandledEngine:
    """Has a function answer requests."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.over = asyncio.Event()

    async def generate(self, request: Generate) -> Generated:
        return await self._handler(request)

    async def swap(self, staged: StagedFiles) -> float:
        raise AssertionError("nobody publishes weights to this engine")

    async def version(self) -> str:
        return "default"

    def load(self) -> ServerLoad:
        return ServerLoad()

    async def ended(self) -> str:
        await self.over.wait()
        return "it was ended"

    def close(self) -> None:
        pass


@dataclass
class PlayedPolicy:
    """``address`` stays the same from one life to the next."""

    address: Address
    handler: Handler
    engine: HandledEngine | None = None
    lives: int = 0
    _keys = new_key_pair()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """One life of its process."""
        wire = Wire(self._keys)
        door = wire.listen_async("host", self.address, {ASKER.public: "a0"}, HOST_LIMITS)
        self.address = door.address
        ready = asyncio.Event()
        host = asyncio.create_task(
            Host(door, self._start, name="s0", keys=self._keys).run(ready.set)
        )
        await ready.wait()
        try:
            yield
        finally:
            door.close()
            host.cancel()
            with suppress(asyncio.CancelledError, SocketError):  # it may be reading just now
                await host
            wire.close()

    async def _start(self) -> HandledEngine:
        self.lives += 1
        self.engine = HandledEngine(self.handler)
        return self.engine

    def line(self, wire: Wire) -> HostLine:
        return HostLine(wire, self.address, who="a0")
