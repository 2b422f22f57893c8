"""A relay of bytes between two processes, over Unix sockets, that cuts, holds up and replays.

It knows nothing of what it carries. It lives in a thread of its own; the calls are for others.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_CHUNK = 1 << 16
_RECORDED = 1 << 20
"""Bytes of a connection that are kept; a replay ends there."""
_ANSWER_S = 30.0


class Relay:
    """Carries what comes at ``path`` to wherever ``target`` says when a connection is opened."""

    def __init__(self, path: Path, target: Callable[[], Path]) -> None:
        """Nobody listens yet."""
        self.path, self._target = path, target
        self.opened = 0
        """Connections so far."""
        self._recorded = [bytearray()]
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def cut(self) -> int:
        """End every connection in the middle; how many there were."""
        return self._call(self._cut())

    def hold_up(self) -> None:
        """Carry nothing, either way, until ``let_go``."""
        self._call(self._hold())

    def let_go(self) -> None:
        """Carry what was held up, and go on."""
        self._call(self._release())

    def replay(self) -> bool:
        """Open a connection that says what the one with most to say has said; whether it was ended.

        ``True`` is an end by the other side: the bytes were of no use.
        """
        return self._call(self._again(bytes(max(self._recorded, key=len))))

    # ---- the thread --------------------------------------------------------------------------

    def _call(self, made: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(made, self._loop).result(2 * _ANSWER_S)

    async def _cut(self) -> int:
        count = len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()
        return count

    async def _hold(self) -> None:
        self._open.clear()

    async def _release(self) -> None:
        self._open.set()

    async def _again(self, said: bytes) -> bool:
        assert said, "nobody has said anything yet"
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._target()))
        except OSError:
            return True
        try:
            async with asyncio.timeout(_ANSWER_S):
                with suppress(OSError):
                    writer.write(said)
                    await writer.drain()
                    while await reader.read(_CHUNK):
                        pass
            return True
        except TimeoutError:
            return False
        finally:
            writer.transport.abort()

    async def _serve(self) -> asyncio.Server:
        self._open.set()
        return await asyncio.start_unix_server(self._carry, str(self.path))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._tasks.add(me)
        try:
            there, back = await asyncio.open_unix_connection(str(self._target()))
        except OSError:
            writer.transport.abort()
            self._tasks.discard(me)
            return
        self.opened += 1
        said = bytearray()
        self._recorded.append(said)
        ends = {writer, back}
        self._writers |= ends
        ways = [
            asyncio.create_task(self._one_way(reader, back, said)),
            asyncio.create_task(self._one_way(there, writer, bytearray(_RECORDED))),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in ends:
                end.transport.abort()
            self._writers -= ends
            self._tasks.discard(me)

    async def _one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytearray
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                said += data[: max(0, _RECORDED - len(said))]
                writer.write(data)
                await writer.drain()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def running(self) -> Iterator["Relay"]:
        """It carries; at the end every connection is cut, and nobody listens any more."""
        self._thread.start()
        server = self._call(self._serve())
        try:
            yield self
        finally:
            self._call(self._end(server))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self.path.unlink(missing_ok=True)
