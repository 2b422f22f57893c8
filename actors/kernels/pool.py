"""Keeps kernels ready, hands each out once, and kills it afterwards."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from actors.kernels.interface import DeathCause, KernelDiedError, Launcher, LiveKernel
from common.waits.catalogue import Part, WaitKind
from common.waits.records import Node
from common.waits.register import waiting

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 3
_RETRY_PAUSE_S = 0.2
_REFILL_DELAY_S = 0.01
_POOL = Node(Part.POOL)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatistics:
    """Counts since the start.

    Attributes:
        started: kernels launched.
        hits: slots served by a kernel that was ready.
        misses: slots that had to wait for a launch.
        died: launches that failed, and ready kernels that died before they were used.
    """

    started: int
    hits: int
    misses: int
    died: int


class KernelPool:
    """A pool of fresh kernels; a kernel that was used is never used again.

    Invariant, whatever is cancelled whenever: every kernel that the launcher made is owned by the
    pool (ready, on its way to one who waits, or in a slot) until it is retired, and it is retired
    once. Taking returns a kernel or leaves the pool as it was: a kernel that arrives at one who
    just left goes to who waits next, or to the reserve. For everyone who waits, a launch is under
    way. ``close`` retires whatever is owned; cut short, it may be called again to go on.
    """

    def __init__(self, launcher: Launcher, *, idle: int, launches_at_once: int = 2) -> None:
        """Keep ``idle`` kernels ready, launching at most ``launches_at_once`` at a time."""
        self._launcher = launcher
        self._idle = idle
        self._ready: deque[LiveKernel] = deque()
        self._owned: set[LiveKernel] = set()
        self._waiting: deque[asyncio.Future[LiveKernel]] = deque()
        self._launching = 0
        self._gate = asyncio.Semaphore(launches_at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._soon: asyncio.TimerHandle | None = None
        self._started = self._hits = self._misses = self._died = 0

    async def start(self) -> None:
        """Start the launcher and the first kernels.

        Raises:
            MachineError: this machine cannot run the sandbox.
        """
        await self._launcher.start()
        self._refill()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[LiveKernel]:
        """A fresh kernel, for this block only; it is killed in the background afterwards.

        Raises:
            KernelDiedError: no kernel could be launched, or the pool is closed.
        """
        kernel = await self._take()
        try:
            yield kernel
        finally:
            self._retire(kernel)

    def statistics(self) -> PoolStatistics:
        """Counts since the start."""
        return PoolStatistics(
            started=self._started, hits=self._hits, misses=self._misses, died=self._died
        )

    async def close(self) -> None:
        """Kill everything, also kernels in use, and close the launcher; leaves no process."""
        self._closed = True
        if self._soon is not None:
            self._soon.cancel()
        while self._waiting:
            _fail(
                self._waiting.popleft(),
                KernelDiedError("the kernel pool was closed", DeathCause.CLOSED),
            )
        self._ready.clear()
        for kernel in list(self._owned):
            self._retire(kernel)
        while self._tasks:  # waiting does not cancel them when it is cancelled itself
            await asyncio.wait(self._tasks)
        await self._launcher.close()

    async def _take(self) -> LiveKernel:
        if self._closed:
            raise KernelDiedError("the kernel pool is closed", DeathCause.CLOSED)
        while self._ready:
            kernel = self._ready.popleft()
            if kernel.alive:
                self._hits += 1
                self._refill_soon()
                return kernel
            self._died += 1
            self._retire(kernel)
        self._misses += 1
        place: asyncio.Future[LiveKernel] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._refill()
        try:
            with waiting(WaitKind.KERNEL):
                return await place
        except asyncio.CancelledError:
            self._leave(place)
            raise

    def _leave(self, place: asyncio.Future[LiveKernel]) -> None:
        """Undo the wait of one who was cancelled, perhaps after the kernel was handed over."""
        if place in self._waiting:
            self._waiting.remove(place)
        elif not place.cancelled() and place.exception() is None:
            self._deliver(place.result())

    def _deliver(self, kernel: LiveKernel) -> None:
        """Hand a kernel to whoever waited longest, else keep it ready."""
        if self._closed:
            self._retire(kernel)
        elif place := self._next_waiting():
            place.set_result(kernel)
        else:
            self._ready.append(kernel)

    def _refill_soon(self) -> None:
        """Refill after a moment, so that launches do not slow the first cell of who was served."""
        if self._soon is None:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(_REFILL_DELAY_S, self._refill)

    def _refill(self) -> None:
        """Launch as many as are missing, for those who wait and for the reserve."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        while not self._closed and (
            len(self._ready) + self._launching < self._idle + len(self._waiting)
        ):
            self._launching += 1
            self._in_background(self._launch())

    async def _launch(self) -> None:
        """Launch one kernel and deliver it; a failure goes to whoever waited longest."""
        try:
            async with self._gate:
                kernel = await self._attempt()
        except Exception as error:
            _LOGGER.warning("could not launch a kernel error=%r", error)
            self._launching -= 1
            if place := self._next_waiting():
                reason = f"no kernel could be launched: {error}"
                _fail(place, KernelDiedError(reason, DeathCause.FAILED_TO_START))
            return
        self._launching -= 1
        self._started += 1
        self._owned.add(kernel)
        self._deliver(kernel)

    async def _attempt(self) -> LiveKernel:
        last = ""
        for attempt in range(_ATTEMPTS):
            if self._closed:
                break
            try:
                with waiting(WaitKind.LAUNCH, who=_POOL):
                    return await self._launcher.launch()
            except KernelDiedError as error:
                self._died += 1
                last = str(error)
                _LOGGER.warning("a launch failed attempt=%d error=%s", attempt + 1, error)
                await asyncio.sleep(_RETRY_PAUSE_S * attempt)
        if self._closed:
            raise KernelDiedError("the kernel pool was closed", DeathCause.CLOSED)
        raise KernelDiedError(f"{_ATTEMPTS} launches failed; {last}", DeathCause.FAILED_TO_START)

    def _next_waiting(self) -> asyncio.Future[LiveKernel] | None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                return place
        return None

    def _retire(self, kernel: LiveKernel) -> None:
        """Kill a kernel in the background, unless that was begun before."""
        if kernel in self._owned:
            self._owned.discard(kernel)
            self._in_background(self._kill(kernel))

    async def _kill(self, kernel: LiveKernel) -> None:
        try:
            await kernel.close()
        except Exception as error:
            _LOGGER.warning("could not close kernel=%s error=%r", kernel.kernel_id, error)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _fail(place: asyncio.Future[LiveKernel], error: Exception) -> None:
    if not place.done():
        place.set_exception(error)
