"""The host's side of a kernel that talks over one inherited socket, whoever started it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actors.kernels.exits import explain_exit
from actors.kernels.interface import CellResult, DeathCause
from actors.kernels.limits.procfs import host_pid
from actors.kernels.limits.wardens import Wardens
from actors.kernels.limits.watchdog import Watched, memory_reason
from actors.kernels.session import KernelSession, SessionLimits
from actors.kernels.tool_specs import ToolHandler, ToolSpec
from common.config import Kernel as KernelConfig

_INSIST_AFTER_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Handles:
    """A fresh sandbox; the receiver owns the descriptors.

    Attributes:
        connection: the host's end of the kernel's socket, non-blocking.
        init: pidfd of the sandbox's pid 1; killing it ends the sandbox, and it becomes readable
            when the whole sandbox is gone.
        kernel: pidfd of the kernel, for interrupts.
    """

    connection: socket.socket
    init: int
    kernel: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a kernel stands on.

    Attributes:
        level: isolation level.
        launcher_lives: whether the process that its sandbox hangs on still runs.
        kill_signal: what makes pid 1 end everything.
        private_files: whether /tmp and /workspace are its own.
        on_gone: called in the loop when every process of the sandbox is gone.
        clean_up: called in a thread once everything of the kernel is gone.
    """

    level: str
    launcher_lives: Callable[[], bool] = lambda: True
    kill_signal: signal.Signals = signal.SIGKILL
    private_files: bool = True
    on_gone: Callable[[], None] = lambda: None
    clean_up: Callable[[], None] | None = None


class PipedKernel:
    """One kernel; see ``interface.Kernel``."""

    def __init__(
        self,
        kernel_id: str,
        handles: Handles,
        config: KernelConfig,
        wardens: Wardens,
        ground: Ground,
    ) -> None:
        """Take over the handles; ``wardens`` enforce the limits of the whole sandbox."""
        self.kernel_id, self.level = kernel_id, ground.level
        self._handles, self._config, self._wardens = handles, config, wardens
        self._ground = ground
        self._gone = asyncio.Event()
        self._clean_up = ground.clean_up
        self._watched = False
        self._cage = wardens.cage(kernel_id, (handles.init, handles.kernel))
        limits = SessionLimits(grace_s=config.grace_s, output_bytes=config.output_bytes)
        self.session = KernelSession(
            kernel_id, limits, interrupt=self._interrupt, kill=self._kill, explain=self._explain
        )
        asyncio.get_running_loop().add_reader(handles.init, self._on_gone)

    @property
    def alive(self) -> bool:
        """False once it died or was closed."""
        return self.session.alive

    async def connect(self) -> None:
        """Wait until the kernel can run cells.

        Raises:
            KernelDiedError: it did not come up in time.
        """
        loop, timeout_s = asyncio.get_running_loop(), self._config.start_timeout_s
        await loop.create_connection(lambda: self.session, sock=self._handles.connection)
        try:
            await asyncio.wait_for(asyncio.shield(self.session.ready), timeout_s)
        except TimeoutError:
            reason = f"it was not ready within {timeout_s:g} s"
            self.session.fail(reason, DeathCause.FAILED_TO_START)
            await self.session.ready

    async def execute(
        self, code: str, *, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
        self._watch()
        self._wardens.watchdog.rouse(self.kernel_id)
        return await self.session.execute(code, timeout_s, output_bytes)

    async def put_file(self, name: str, data: bytes) -> None:
        """Write a file into /workspace; see ``interface.Kernel``."""
        await self.session.put_file(name, data)

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook; see ``interface.Kernel``."""
        self.session.bind_tools(tools, handler)

    async def close(self) -> None:
        """Kill the sandbox; returns when it is gone."""
        self.session.fail("it was closed", DeathCause.CLOSED)
        self._kill()
        if self._ground.kill_signal is not signal.SIGKILL:
            await self._insist()
        await self._gone.wait()
        clean_up, self._clean_up = self._clean_up, None
        if clean_up is not None:
            await asyncio.to_thread(clean_up)

    def _watch(self) -> None:
        """From its first cell on, a kernel can use up things."""
        if self._watched or self._gone.is_set():
            return
        self._watched = True
        pid = host_pid(self._handles.init)
        self._wardens.watchdog.watch(
            Watched(
                name=self.kernel_id,
                pid=pid,
                end=self.session.fail,
                cage=self._cage,
                private_files=self._ground.private_files,
            )
        )

    async def _insist(self) -> None:
        """Kill a pid 1 that does not end when it is asked to, as one that a cell stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _INSIST_AFTER_S)
        self._signal(self._handles.init, signal.SIGKILL)

    def _interrupt(self) -> None:
        self._signal(self._handles.kernel, signal.SIGINT)

    def _kill(self) -> None:
        self._signal(self._handles.init, self._ground.kill_signal)

    def _signal(self, pidfd: int, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)

    def _on_gone(self) -> None:
        """The sandbox's pid 1 ended, and with it every process of the sandbox."""
        if self._gone.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._handles.init)
        self._gone.set()
        self._wardens.watchdog.forget(self.kernel_id)
        os.close(self._handles.init)
        os.close(self._handles.kernel)
        self._ground.on_gone()
        if self._cage is not None and self._cage.out_of_memory():
            self.session.fail(*self._memory_death())
        self.session.connection_lost(None)
        if self._cage is not None:
            self._cage.remove()

    def _memory_death(self) -> tuple[str, DeathCause]:
        limit = self._config.sandbox_memory_mib
        return memory_reason(limit * 2**20, limit), DeathCause.MEMORY

    def _explain(self, code: int | None) -> tuple[str, DeathCause]:
        """Why the kernel ended by itself; without a code its pid 1 was killed."""
        if code is None and not self._ground.launcher_lives():
            return "the process that its sandbox hangs on died", DeathCause.LAUNCHER_DIED
        if code is None:
            return "the first process of its sandbox was killed", DeathCause.EXITED
        if self._cage is not None and self._cage.out_of_memory():
            return self._memory_death()
        return explain_exit(code, self._config.cpu_s)
