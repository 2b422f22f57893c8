"""Keeps kernels ready, hands each out once, and kills it afterwards."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from actors.kernels.interface import Kernel, KernelDied, Launcher

_LOGGER = logging.getLogger(__name__)
_RETRY_PAUSE_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatistics:
    """Counts since the start.

    Attributes:
        started: kernels launched.
        hits: slots served by a kernel that was ready.
        misses: slots that had to wait for a launch.
        died: launches that failed.
    """

    started: int
    hits: int
    misses: int
    died: int


class KernelPool:
    """A pool of fresh kernels; a kernel that was used is never used again."""

    def __init__(self, launcher: Launcher, *, idle: int, launches_at_once: int = 2) -> None:
        """Keep ``idle`` kernels ready, launching at most ``launches_at_once`` at a time."""
        self._launcher = launcher
        self._idle = idle
        self._ready: list[Kernel] = []
        self._launching = 0
        self._gate = asyncio.Semaphore(launches_at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._started = self._hits = self._misses = self._died = 0

    async def start(self) -> None:
        """Start the launcher and the first kernels.

        Raises:
            EnvironmentFault: this machine cannot run the sandbox.
        """
        await self._launcher.start()
        self._refill()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Kernel]:
        """A fresh kernel, for this block only; it is killed in the background afterwards.

        Raises:
            KernelDied: no kernel could be launched.
        """
        kernel = await self._take()
        try:
            yield kernel
        finally:
            self._in_background(self._retire(kernel))

    def statistics(self) -> PoolStatistics:
        """Counts since the start."""
        return PoolStatistics(
            started=self._started, hits=self._hits, misses=self._misses, died=self._died
        )

    async def close(self) -> None:
        """Kill everything and close the launcher; leaves no process behind."""
        self._closed = True
        kernels, self._ready = self._ready, []
        await asyncio.gather(*(kernel.close() for kernel in kernels))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._launcher.close()

    async def _take(self) -> Kernel:
        if self._closed:
            raise KernelDied("the kernel pool is closed")
        if self._ready:
            self._hits += 1
            kernel = self._ready.pop(0)
            self._refill()
            return kernel
        self._misses += 1
        self._refill()
        return await self._launch()

    async def _launch(self) -> Kernel:
        async with self._gate:
            try:
                kernel = await self._launcher.launch()
            except KernelDied:
                self._died += 1
                raise
        self._started += 1
        return kernel

    def _refill(self) -> None:
        while not self._closed and len(self._ready) + self._launching < self._idle:
            self._launching += 1
            self._in_background(self._add_ready())

    async def _add_ready(self) -> None:
        try:
            kernel = await self._launch()
        except Exception as error:  # a background launch must not end the actor
            _LOGGER.warning("could not launch a spare kernel error=%r", error)
            await asyncio.sleep(_RETRY_PAUSE_S)
            return
        finally:
            self._launching -= 1
        if self._closed:
            await kernel.close()
        else:
            self._ready.append(kernel)

    async def _retire(self, kernel: Kernel) -> None:
        try:
            await kernel.close()
        except Exception as error:
            _LOGGER.warning("could not close kernel=%s error=%r", kernel.kernel_id, error)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
