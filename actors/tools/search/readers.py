"""Searches of one large index in threads of its own."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from actors.tools.search.index import SearchIndex


class IndexReaders:
    """Several connections to one index, each used by one thread at a time.

    A search that is given up is stopped, and its connection is handed on only when its thread is
    done with it. The threads are not asyncio's own, which clean up kernels and read files.

    Invariant: a connection is either free or in the hands of one search.
    """

    def __init__(self, readers: Sequence[SearchIndex]) -> None:
        """Search through ``readers``, at least one."""
        self._readers = tuple(readers)
        self._free = asyncio.Queue[SearchIndex]()
        for reader in readers:
            self._free.put_nowait(reader)
        self._threads = ThreadPoolExecutor(len(readers), thread_name_prefix="search")
        self._running: dict[asyncio.Future[str], threading.Event] = {}

    @property
    def free(self) -> int:
        """Connections that no search holds."""
        return self._free.qsize()

    async def search(self, query: str) -> str:
        """What ``SearchIndex.search`` gives; waits for a free connection.

        Raises:
            ValueError: the index is damaged.
        """
        reader, given_up = await self._free.get(), threading.Event()
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._threads, reader.search, query, given_up)
        except RuntimeError:  # no thread could be started
            self._free.put_nowait(reader)
            raise
        self._running[work] = given_up
        work.add_done_callback(lambda work: self._give_back(work, reader))
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            given_up.set()
            raise
        return work.result()

    async def close(self) -> None:
        """Stop what runs and close the connections."""
        for given_up in self._running.values():
            given_up.set()
        for _ in self._readers:
            await self._free.get()
        self._threads.shutdown()
        for reader in self._readers:
            reader.close()

    def _give_back(self, work: asyncio.Future[str], reader: SearchIndex) -> None:
        work.exception()  # asyncio complains of one that nobody looked at
        del self._running[work]
        self._free.put_nowait(reader)
