"""The default launcher: kernels forked from a zygote, each in its own namespaces (level A)."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Sequence

from actors.kernels.bubblewrap import check_sandbox
from actors.kernels.interface import CellResult, DeathCause, KernelDied, ToolHandler, ToolSpec
from actors.kernels.runtime import RuntimePaths, find_runtime
from actors.kernels.sandboxed.isolation import Limits
from actors.kernels.session import KernelSession, SessionLimits
from actors.kernels.zygote_process import Fork, ZygoteProcess
from common.config import Kernel as KernelConfig

_LOGGER = logging.getLogger(__name__)
LEVEL = "A-forked"


class ForkedKernel:
    """One fork; see ``interface.Kernel``."""

    level = LEVEL

    def __init__(self, kernel_id: str, fork: Fork, limits: SessionLimits) -> None:
        """Take over the fork's descriptors."""
        self.kernel_id = kernel_id
        self._fork = fork
        self._gone = asyncio.Event()
        self.session = KernelSession(kernel_id, limits, interrupt=self._interrupt, kill=self._kill)
        asyncio.get_running_loop().add_reader(fork.init, self._on_gone)

    @property
    def alive(self) -> bool:
        """False once it died or was closed."""
        return self.session.alive

    async def connect(self, timeout_s: float) -> None:
        """Wait until the kernel can run cells.

        Raises:
            KernelDied: it did not come up in time.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.session, sock=self._fork.connection)
        try:
            await asyncio.wait_for(asyncio.shield(self.session.ready), timeout_s)
        except TimeoutError:
            reason = f"it was not ready within {timeout_s:g} s (kernel.start_timeout_s)"
            self.session.fail(reason, DeathCause.FAILED_TO_START)
            await self.session.ready

    async def execute(
        self, code: str, *, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
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
        await self._gone.wait()

    def _interrupt(self) -> None:
        self._signal(self._fork.kernel, signal.SIGINT)

    def _kill(self) -> None:
        self._signal(self._fork.init, signal.SIGKILL)

    def _signal(self, pidfd: int, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)

    def _on_gone(self) -> None:
        """The sandbox's pid 1 ended, and with it every process of the sandbox."""
        if self._gone.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._fork.init)
        self._gone.set()
        os.close(self._fork.init)
        os.close(self._fork.kernel)
        self.session.fail("its process exited", DeathCause.EXITED)


class ForkedLauncher:
    """Forks kernels from one zygote, which is started again when it dies."""

    level = LEVEL

    def __init__(self, config: KernelConfig, runtime: RuntimePaths | None = None) -> None:
        """Make a launcher; ``start`` starts the zygote."""
        self._config = config
        self._runtime = runtime
        self._limits = SessionLimits(grace_s=config.grace_s, output_bytes=config.output_bytes)
        self._zygote: ZygoteProcess | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    async def start(self) -> None:
        """Check the sandbox and start the zygote; see ``interface.Launcher``."""
        self._runtime = self._runtime or find_runtime()
        check_sandbox(self._runtime)
        await self._running_zygote()

    async def launch(self) -> ForkedKernel:
        """Fork a fresh kernel; see ``interface.Launcher``.

        A zygote that turns out to be dying is replaced, once.
        """
        zygote = await self._running_zygote()
        try:
            return await self._launch_from(zygote)
        except KernelDied:
            if zygote.alive:
                raise
        return await self._launch_from(await self._running_zygote())

    async def _launch_from(self, zygote: ZygoteProcess) -> ForkedKernel:
        fork = await zygote.fork()
        kernel = ForkedKernel(f"{os.getpid()}-{next(self._numbers)}", fork, self._limits)
        try:
            await kernel.connect(self._config.start_timeout_s)
        except BaseException:
            await kernel.close()
            raise
        return kernel

    async def close(self) -> None:
        """Kill the zygote and with it all kernels; returns when they are gone."""
        self._closed = True
        async with self._starting:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.close()

    async def _running_zygote(self) -> ZygoteProcess:
        async with self._starting:
            if self._closed:
                raise KernelDied("the launcher is closed")
            if self._zygote is not None and self._zygote.alive:
                return self._zygote
            if self._zygote is not None:
                _LOGGER.warning("restarted the zygote, which died with all its kernels")
                await self._zygote.close()
            self._runtime = self._runtime or find_runtime()
            self._zygote = await self._start_zygote(self._runtime)
            return self._zygote

    async def _start_zygote(self, runtime: RuntimePaths) -> ZygoteProcess:
        config = self._config
        limits = Limits(
            memory_mib=config.memory_mib,
            workspace_mib=config.workspace_mib,
            processes=config.processes,
        )
        modules = ("numpy", "numpy.random") if config.preload_numpy else ()
        zygote = ZygoteProcess(runtime, limits, timeout_s=config.start_timeout_s, modules=modules)
        await zygote.start()
        return zygote
