"""Watches what whole sandboxes use, and ends those that pass a limit.

No rlimit bounds the sum over the processes and files of a sandbox. A few times per second the
watchdog adds up what /proc says. Kernels that never ran a cell are not watched. Where a kernel has
a control group, that one bounds its memory and tells its CPU time.

No kernel's limits depend on another kernel: memory is measured exactly beside the scans, which go
on meanwhile, each kernel's on its own, with a rest and a bound of its own. What that costs counts
as the kernel's own CPU time.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from actors.kernels.cgroup import Cage
from actors.kernels.interface import DeathCause
from actors.kernels.memory_use import TooDear, measure_memory
from actors.kernels.procfs import FilesUse, files_use, sockets_bytes, tree_use

_LOGGER = logging.getLogger(__name__)
_PERIOD_S = 0.25
_SLICE = 8
_REST = 3
"""Scans that leave a kernel out which used no CPU time since the last one."""
_EXACT_DUTY = 0.1
"""Share of the time that exact measurements of one kernel take, if they are fast."""
_MOST_REST_S = 1.0
"""A kernel whose measurements are dear is still measured this soon after the last one."""
_DEAREST_S = 2.0
"""CPU time of one measurement; a kernel that takes more is ended."""
_SLOWEST_S = 5.0
"""Wall time of one: processes that keep changing their mappings make who looks at them wait."""
_MANY_PROCESSES = 6
"""Of so many the mappings may add up to more than they may be, see ``memory_use.py``."""
_MEASURED_AT_ONCE = 32
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class UseLimits:
    """Limits of one whole sandbox; ``inf`` for none."""

    memory_mib: float
    cpu_s: float
    files: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """One kernel.

    Attributes:
        pid: of the sandbox's pid 1, as the host sees it.
        end: ends the kernel; takes the reason and the cause.
        cage: its control group, if it has one.
        private_files: whether /tmp, /workspace and /dev/shm are its own.
    """

    name: str
    pid: int
    end: Callable[[str, DeathCause], None]
    cage: Cage | None = None
    private_files: bool = True


class Watchdog:
    """One task over all kernels of a launcher; it runs while there are any."""

    def __init__(self, limits: UseLimits, *, slowest_s: float = _SLOWEST_S) -> None:
        """Start watching with the first kernel; end it if measuring it takes ``slowest_s``."""
        self._limits, self._slowest_s = limits, slowest_s
        self._watched: dict[str, Watched] = {}
        self._cpu_s: dict[str, float] = {}
        self._resting: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._measuring: dict[str, asyncio.Task[None]] = {}
        self._exact_from: dict[str, float] = {}
        self._measured_s: dict[str, float] = {}
        self._threads: ThreadPoolExecutor | None = None

    def watch(self, kernel: Watched) -> None:
        """Watch a kernel from now on."""
        self._watched[kernel.name] = kernel
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def rouse(self, name: str) -> None:
        """A cell of this kernel starts: look at it with the next scan."""
        self._resting.pop(name, None)

    def forget(self, name: str) -> None:
        """Watch it no longer."""
        for known in (
            *(self._watched, self._cpu_s, self._resting),
            *(self._exact_from, self._measured_s),
        ):
            known.pop(name, None)

    async def close(self) -> None:
        """Forget all; returns when nothing runs any more."""
        for name in list(self._watched):
            self.forget(name)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.measured()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def measured(self) -> None:
        """Wait until no kernel's memory is being measured."""
        while self._measuring:
            await asyncio.wait(self._measuring.values())

    async def scan(self) -> None:
        """Look at every kernel once; ``measured`` waits for what this begins."""
        for number, kernel in enumerate(list(self._watched.values())):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if self._rests(kernel.name):
                continue
            if kernel.cage is not None:
                self._judge_cpu(kernel, kernel.cage.cpu_s())
            elif (pids := self._look(kernel)) is not None:
                self._begin_measuring(kernel, pids)

    def _rests(self, name: str) -> bool:
        left = self._resting.get(name, 0)
        if left:
            self._resting[name] = left - 1
        return left > 0

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self.scan()
            except Exception:  # a limit must not go unwatched because of one odd process
                _LOGGER.exception("a scan of the kernels failed")

    def _look(self, kernel: Watched) -> list[int] | None:
        """End it for CPU time or files; its processes if its memory needs a closer look."""
        use = tree_use(kernel.pid)
        files = files_use(kernel.pid) if kernel.private_files else FilesUse()
        self._judge_cpu(kernel, use.cpu_s)
        if files.most_files > self._limits.files:
            kernel.end(
                f"one of its folders holds {files.most_files:,} files, "
                f"limit {self._limits.files:,.0f} (kernel.inodes)",
                DeathCause.INODES,
            )
        most = self._limits.memory_mib * _MEBIBYTE - files.size_bytes
        if kernel.private_files:
            most -= sockets_bytes(kernel.pid)
        suspect = max(use.resident_bytes, use.grown_bytes) > most
        return use.pids if suspect or len(use.pids) >= _MANY_PROCESSES else None

    def _judge_cpu(self, kernel: Watched, used_s: float) -> None:
        used_s += self._measured_s.get(kernel.name, 0.0)
        if used_s == self._cpu_s.get(kernel.name):
            self._resting[kernel.name] = _REST
        self._cpu_s[kernel.name] = used_s
        if used_s > self._limits.cpu_s:
            kernel.end(
                f"it used {used_s:.1f} s of CPU, limit {self._limits.cpu_s:g} (kernel.cpu_s)",
                DeathCause.CPU,
            )

    def _begin_measuring(self, kernel: Watched, pids: list[int]) -> None:
        """Measure exactly, unless that is being done or was done a moment ago."""
        rested = time.monotonic() >= self._exact_from.get(kernel.name, -math.inf)
        if rested and kernel.name not in self._measuring:
            task = asyncio.get_running_loop().create_task(self._measure(kernel, pids))
            self._measuring[kernel.name] = task
            task.add_done_callback(partial(self._on_measured, kernel.name))

    def _on_measured(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._measuring[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOGGER.error("kernel=%s could not be measured", name, exc_info=error)

    async def _measure(self, kernel: Watched, pids: list[int]) -> None:
        """Measure in a thread, and end the kernel if that is too much or too dear."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MEASURED_AT_ONCE, "watchdog")
        files, sockets = 0, 0
        if kernel.private_files:
            files, sockets = files_use(kernel.pid).size_bytes, sockets_bytes(kernel.pid)
        loop = asyncio.get_running_loop()
        measuring = loop.run_in_executor(self._threads, self._memory_problem, pids, files, sockets)
        try:
            problem, took_s = await asyncio.wait_for(measuring, self._slowest_s)
        except TimeoutError:
            took_s, problem = 0.0, _unbounded(f"it was measured for {self._slowest_s:g} s")
        if kernel.name not in self._watched:
            return
        self._measured_s[kernel.name] = self._measured_s.get(kernel.name, 0.0) + took_s
        self._exact_from[kernel.name] = time.monotonic() + min(took_s / _EXACT_DUTY, _MOST_REST_S)
        if problem:
            kernel.end(problem, DeathCause.MEMORY)

    def _memory_problem(
        self, pids: list[int], files_bytes: int, in_sockets: int
    ) -> tuple[str, float]:
        """What is wrong with the memory of a sandbox, or "", and the CPU time that it took."""
        started, limit_mib = time.thread_time(), self._limits.memory_mib
        try:
            used = in_sockets + measure_memory(pids, files_bytes, _DEAREST_S)
            problem = memory_reason(used, limit_mib) if used > limit_mib * _MEBIBYTE else ""
        except TooDear as reason:
            problem = _unbounded(str(reason))
        return problem, time.thread_time() - started


def _unbounded(reason: str) -> str:
    return f"{reason}: its memory (kernel.sandbox_memory_mib) cannot be bounded"


def memory_reason(used_bytes: float, limit_mib: float) -> str:
    """What a kernel that used too much memory died of."""
    used = f"{used_bytes / _MEBIBYTE:,.0f} MiB"
    return f"it used {used} of memory, limit {limit_mib:,.0f} (kernel.sandbox_memory_mib)"
