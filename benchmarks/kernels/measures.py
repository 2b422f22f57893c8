"""The single measurements of the kernel benchmark; times by the host's clock."""

import asyncio
import os
import resource
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from actors.kernels.interface import CellStatus, Launcher, LiveKernel
from actors.kernels.pool import KernelPool
from actors.kernels.tool_specs import ToolParameter, ToolSpec
from benchmarks.cpu_meter import CpuMeter
from benchmarks.kernels.peers import StockKernel, launch_stock, launch_worker
from benchmarks.process_tree import Process, descendants, pss_mib

Made = TypeVar("Made")
CELL = "1 + 1"
_TIMEOUT_S = 60.0
_POOL = 8
_INTERRUPT_AFTER_S = 0.05
_TIMED_CALLS = """
import time
_times = []
for _ in range({count}):
    _started = time.perf_counter()
    echo("hello")
    _times.append(time.perf_counter() - _started)
import statistics
print(statistics.median(_times) * 1e6)
"""


@dataclass
class Lives:
    """Wall time (ms) and CPU time (ms) of lives: start, one cell, end."""

    first_cell_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0
    seconds: float = 0.0

    @property
    def median_ms(self) -> float:
        """From start to the end of the first cell."""
        return statistics.median(self.first_cell_ms)

    @property
    def cpu_ms_each(self) -> float | None:
        """CPU time of one life, host and sandbox; None where it cannot be told."""
        return self.cpu_ms / len(self.first_cell_ms) if self.cpu_ms else None

    async def add(self, live: Callable[[], Awaitable[float]], count: int, meter: CpuMeter) -> None:
        """Live ``count`` times, one after the other."""
        cpu, started = meter.read_ms(), time.perf_counter()
        for _ in range(count):
            self.first_cell_ms.append(await live())
        self.seconds += time.perf_counter() - started
        used = meter.read_ms()
        if used is not None and cpu is not None:
            self.cpu_ms += used - cpu


async def live_ours(launcher: Launcher) -> float:
    started = time.perf_counter()
    kernel = await launcher.launch()
    await kernel.execute(CELL, timeout_s=_TIMEOUT_S)
    elapsed = time.perf_counter() - started
    await kernel.close()
    return elapsed * 1000


async def live_stock() -> float:
    started = time.perf_counter()
    kernel = await launch_stock()
    await kernel.execute(CELL)
    elapsed = time.perf_counter() - started
    await kernel.close()
    return elapsed * 1000


async def live_worker() -> float:
    started = time.perf_counter()
    worker = await launch_worker(CELL)
    elapsed = time.perf_counter() - started
    await worker.close()
    return elapsed * 1000


async def pool_hit_ms(launcher: Launcher, count: int) -> float:
    """Median from asking a pool to the end of the first cell, where a kernel was ready.

    The launcher is the pool's from here: it is started and closed with it.
    """
    pool = KernelPool(launcher, idle=_POOL)
    await pool.start()
    times = []
    try:
        while len(times) < count:
            hits = pool.statistics().hits
            started = time.perf_counter()
            async with pool.slot() as kernel:
                await kernel.execute(CELL, timeout_s=_TIMEOUT_S)
                elapsed = (time.perf_counter() - started) * 1000
            if pool.statistics().hits > hits:
                times.append(elapsed)
            await asyncio.sleep(0.05)
    finally:
        await pool.close()
    return statistics.median(times)


async def launch_many(
    launch: Callable[[], Awaitable[Made]], count: int, *, at_once: int
) -> list[Made]:
    """``count`` kernels, ``at_once`` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> Made:
        async with gate:
            return await launch()

    return list(await asyncio.gather(*(one() for _ in range(count))))


def memory_of(processes: list[Process], kernels: int) -> float:
    """PSS per kernel, MiB, with its share of what they all come from."""
    return pss_mib(processes) / kernels


def processes_besides(known: list[Process]) -> list[Process]:
    """Processes below this one that are not in ``known``."""
    return sorted(set(descendants(os.getpid())) - set(known), key=lambda process: process.pid)


@dataclass
class Throughput:
    """Cells run in rounds by many kernels at once."""

    cells: int = 0
    seconds: float = 0.0
    cpu_ms: float = 0.0
    host_cpu_ms: float = 0.0

    @property
    def cells_per_s(self) -> float:
        """Over all rounds."""
        return self.cells / self.seconds

    def per_cell(self, milliseconds: float) -> float | None:
        """Microseconds per cell; None where they cannot be told."""
        return milliseconds * 1000 / self.cells if milliseconds else None

    async def add(
        self, executes: list[Callable[[], Awaitable[object]]], seconds: float, meter: CpuMeter
    ) -> None:
        """One round: every kernel runs cell after cell."""
        deadline = time.perf_counter() + seconds

        async def loop(execute: Callable[[], Awaitable[object]]) -> int:
            done = 0
            while time.perf_counter() < deadline:
                await execute()
                done += 1
            return done

        cpu, own, started = meter.read_ms(), own_cpu_ms(), time.perf_counter()
        self.cells += sum(await asyncio.gather(*(loop(execute) for execute in executes)))
        self.seconds += time.perf_counter() - started
        used = meter.read_ms()
        self.host_cpu_ms += own_cpu_ms() - own
        self.cpu_ms += 0.0 if used is None or cpu is None else used - cpu


def own_cpu_ms() -> float:
    """CPU time of this process alone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1000


def cells_of_ours(kernels: list[LiveKernel]) -> list[Callable[[], Awaitable[object]]]:
    return [lambda kernel=kernel: kernel.execute(CELL, timeout_s=_TIMEOUT_S) for kernel in kernels]


def cells_of_stock(kernels: list[StockKernel]) -> list[Callable[[], Awaitable[object]]]:
    return [lambda kernel=kernel: kernel.execute(CELL) for kernel in kernels]


async def tool_call_us(launcher: Launcher, count: int) -> float:
    """Median of a tool call from a cell to the host and back, by the notebook's clock."""

    async def echo(
        _name: str, arguments: tuple[object, ...], _keywords: dict[str, object]
    ) -> object:
        return arguments[0]

    kernel = await launcher.launch()
    try:
        spec = ToolSpec(name="echo", doc="Says it again.", parameters=(ToolParameter(name="text"),))
        kernel.bind_tools([spec], echo)
        await kernel.execute(_TIMED_CALLS.format(count=count // 10), timeout_s=_TIMEOUT_S)
        result = await kernel.execute(_TIMED_CALLS.format(count=count), timeout_s=_TIMEOUT_S)
        return float(result.output)
    finally:
        await kernel.close()


async def interrupt_ms(launcher: Launcher, count: int) -> float:
    """Median from the deadline of a cell that does not stop to the end of the next cell."""
    kernel = await launcher.launch()
    times = []
    try:
        for _ in range(count):
            started = time.perf_counter()
            result = await kernel.execute("while True: pass", timeout_s=_INTERRUPT_AFTER_S)
            await kernel.execute(CELL, timeout_s=_TIMEOUT_S)
            times.append(time.perf_counter() - started - _INTERRUPT_AFTER_S)
            if result.status is not CellStatus.TIMED_OUT:
                raise RuntimeError(f"the endless cell ended by itself: {result}")
    finally:
        await kernel.close()
    return statistics.median(times) * 1000
