"""Watches what whole sandboxes use, and ends those that pass a limit.

No rlimit bounds the sum over the processes and files of a sandbox. A few times per second the
watchdog adds up what /proc says. Kernels that never ran a cell are not watched. Where a kernel has
a control group, that one bounds its memory and tells its CPU time.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.kernels.cgroup import Cage
from actors.kernels.interface import DeathCause
from actors.kernels.procfs import FilesUse, exact_memory_bytes, files_use, tree_use

_LOGGER = logging.getLogger(__name__)
_PERIOD_S = 0.25
_SLICE = 8
_REST = 3
"""Scans that leave a kernel out which used no CPU time since the last one."""
_EXACT_DUTY = 0.1
"""Share of the time that exact measurements may take."""
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

    def __init__(self, limits: UseLimits) -> None:
        """Start watching with the first kernel."""
        self._limits = limits
        self._watched: dict[str, Watched] = {}
        self._cpu_s: dict[str, float] = {}
        self._resting: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._exact_from = -math.inf

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
        for known in (self._watched, self._cpu_s, self._resting):
            known.pop(name, None)

    async def close(self) -> None:
        """Forget all; returns when nothing runs any more."""
        for name in list(self._watched):
            self.forget(name)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def scan(self) -> None:
        """Look at every kernel once."""
        suspects = []
        for number, kernel in enumerate(list(self._watched.values())):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if self._rests(kernel.name):
                continue
            if kernel.cage is not None:
                self._judge_cpu(kernel, kernel.cage.cpu_s())
            elif (pids := self._look(kernel)) is not None:
                suspects.append((kernel, pids))
        if suspects and time.monotonic() >= self._exact_from:
            await self._confirm(suspects)

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
        return use.pids if max(use.resident_bytes, use.grown_bytes) > most else None

    def _judge_cpu(self, kernel: Watched, used_s: float) -> None:
        if used_s == self._cpu_s.get(kernel.name):
            self._resting[kernel.name] = _REST
        self._cpu_s[kernel.name] = used_s
        if used_s > self._limits.cpu_s:
            kernel.end(
                f"it used {used_s:.1f} s of CPU, limit {self._limits.cpu_s:g} (kernel.cpu_s)",
                DeathCause.CPU,
            )

    async def _confirm(self, suspects: list[tuple[Watched, list[int]]]) -> None:
        """Measure exactly, outside of the loop's thread, and rest ten times as long."""
        started = time.monotonic()
        for kernel, pids in suspects:
            used = await asyncio.to_thread(exact_memory_bytes, pids)
            used += files_use(kernel.pid).size_bytes if kernel.private_files else 0
            if used > self._limits.memory_mib * _MEBIBYTE and kernel.name in self._watched:
                kernel.end(memory_reason(used, self._limits.memory_mib), DeathCause.MEMORY)
        now = time.monotonic()
        self._exact_from = now + (now - started) / _EXACT_DUTY


def memory_reason(used_bytes: float, limit_mib: float) -> str:
    """What a kernel that used too much memory died of."""
    used = f"{used_bytes / _MEBIBYTE:,.0f} MiB"
    return f"it used {used} of memory, limit {limit_mib:,.0f} (kernel.sandbox_memory_mib)"
