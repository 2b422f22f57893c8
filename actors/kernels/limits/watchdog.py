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

from actors.kernels.interface import DeathCause
from actors.kernels.limits.cgroup import Cage
from actors.kernels.limits.memory_use import TooDearError, measure_memory
from actors.kernels.limits.procfs import FilesUse, files_use, sockets_bytes, tree_use

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

    sandbox_memory_mib: float
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


@dataclass(slots=True)
class _Record:
    """What is known of one kernel.

    Attributes:
        cpu_s: as the last scan found it.
        rests: how many scans still leave it out.
        measuring: its memory is being measured exactly.
        exact_from: when that may be done again, by the monotonic clock.
        measured_s: CPU time that all of it took.
    """

    kernel: Watched
    cpu_s: float = -1.0
    rests: int = 0
    measuring: bool = False
    exact_from: float = -math.inf
    measured_s: float = 0.0


class Watchdog:
    """One task over all kernels of a launcher; it runs while there are any."""

    def __init__(self, limits: UseLimits, *, slowest_s: float = _SLOWEST_S) -> None:
        """Start watching with the first kernel; end it if measuring it takes ``slowest_s``."""
        self._limits, self._slowest_s = limits, slowest_s
        self._records: dict[str, _Record] = {}
        self._task: asyncio.Task[None] | None = None
        self._measuring: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None

    def watch(self, kernel: Watched) -> None:
        """Watch a kernel from now on."""
        self._records[kernel.name] = _Record(kernel)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def rouse(self, name: str) -> None:
        """A cell of this kernel starts: look at it with the next scan."""
        if record := self._records.get(name):
            record.rests = 0

    def forget(self, name: str) -> None:
        """Watch it no longer."""
        self._records.pop(name, None)

    async def close(self) -> None:
        """Forget all; returns when nothing runs any more."""
        self._records.clear()
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
            await asyncio.wait(self._measuring)

    async def scan(self) -> None:
        """Look at every kernel once; ``measured`` waits for what this begins."""
        for number, name in enumerate(list(self._records)):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            record = self._records.get(name)
            if record is None:
                continue
            if record.rests:
                record.rests -= 1
                continue
            try:
                self._look(record)
            except Exception:  # nobody must go unwatched because of one odd kernel
                _LOGGER.exception("kernel=%s could not be watched", name)

    async def _run(self) -> None:
        while self._records:
            await asyncio.sleep(_PERIOD_S)
            await self.scan()

    def _look(self, record: _Record) -> None:
        """End a kernel for CPU time or files; measure its memory if that may be too much."""
        kernel = record.kernel
        if kernel.cage is not None:
            self._judge_cpu(record, kernel.cage.cpu_s())
            return
        use = tree_use(kernel.pid)
        self._judge_cpu(record, use.cpu_s)
        files, sockets = FilesUse(), 0
        if kernel.private_files:
            files, sockets = files_use(kernel.pid), sockets_bytes(kernel.pid)
        if files.most_files > self._limits.files:
            kernel.end(
                f"one of its folders holds {files.most_files:,} files, "
                f"limit {self._limits.files:,.0f}",
                DeathCause.INODES,
            )
        most = self._limits.sandbox_memory_mib * _MEBIBYTE - files.size_bytes - sockets
        suspect = max(use.resident_bytes, use.grown_bytes) > most
        if suspect or len(use.pids) >= _MANY_PROCESSES:
            self._begin_measuring(record, use.pids, files.size_bytes, sockets)

    def _judge_cpu(self, record: _Record, used_s: float) -> None:
        used_s += record.measured_s
        if used_s == record.cpu_s:
            record.rests = _REST
        record.cpu_s = used_s
        if used_s > self._limits.cpu_s:
            record.kernel.end(
                f"it used {used_s:.1f} s of CPU, limit {self._limits.cpu_s:g} (kernel.cpu_s)",
                DeathCause.CPU,
            )

    def _begin_measuring(self, record: _Record, pids: list[int], files: int, sockets: int) -> None:
        """Measure exactly, unless that is being done or was done a moment ago."""
        if record.measuring or time.monotonic() < record.exact_from:
            return
        record.measuring = True
        task = asyncio.get_running_loop().create_task(self._measure(record, pids, files, sockets))
        self._measuring.add(task)
        task.add_done_callback(self._measuring.discard)

    async def _measure(self, record: _Record, pids: list[int], files: int, sockets: int) -> None:
        """Measure in a thread, and end the kernel if that is too much or too dear."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MEASURED_AT_ONCE, "watchdog")
        loop, kernel = asyncio.get_running_loop(), record.kernel
        measuring = loop.run_in_executor(self._threads, self._memory_problem, pids, files, sockets)
        try:
            problem, took_s = await asyncio.wait_for(measuring, self._slowest_s)
        except TimeoutError:
            took_s, problem = 0.0, _unbounded(f"it was measured for {self._slowest_s:g} s")
        except Exception:
            _LOGGER.exception("kernel=%s could not be measured", kernel.name)
            return
        finally:
            record.measuring = False
        if self._records.get(kernel.name) is not record:
            return
        record.measured_s += took_s
        record.exact_from = time.monotonic() + min(took_s / _EXACT_DUTY, _MOST_REST_S)
        if problem:
            kernel.end(problem, DeathCause.MEMORY)

    def _memory_problem(
        self, pids: list[int], files_bytes: int, in_sockets: int
    ) -> tuple[str, float]:
        """What is wrong with the memory of a sandbox, or "", and the CPU time that it took."""
        started, limit_mib = time.thread_time(), self._limits.sandbox_memory_mib
        try:
            used = in_sockets + measure_memory(pids, files_bytes, _DEAREST_S)
            problem = memory_reason(used, limit_mib) if used > limit_mib * _MEBIBYTE else ""
        except TooDearError as reason:
            problem = _unbounded(str(reason))
        return problem, time.thread_time() - started


def _unbounded(reason: str) -> str:
    return f"{reason}: its memory (kernel.sandbox_memory_mib) cannot be bounded"


def memory_reason(used_bytes: float, limit_mib: float) -> str:
    """What a kernel that used too much memory died of."""
    used = f"{used_bytes / _MEBIBYTE:,.0f} MiB"
    return f"it used {used} of memory, limit {limit_mib:,.0f} (kernel.sandbox_memory_mib)"
