"""The default launcher: kernels forked from a zygote, each in its own namespaces (level A)."""

import asyncio
import itertools
import os
import weakref
from functools import partial

from actors.kernels.bubblewrap import check_sandbox
from actors.kernels.forked.zygote_process import ZygoteProcess
from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.limits.host_uids import release
from actors.kernels.limits.id_ranges import NoHostUidsError, Source
from actors.kernels.limits.wardens import Wardens, sandbox_limits
from actors.kernels.piped import Ground, PipedKernel
from actors.kernels.runtime import RuntimePaths, find_runtime
from actors.mending import MendedPart, Mending
from common.config import Kernel as KernelConfig
from common.errors import MachineError
from common.waits.catalogue import Part, WaitKind
from common.waits.records import Node
from common.waits.register import waiting


class ForkedLauncher:
    """Forks kernels from one zygote; one that dies is replaced (``actors.mending``)."""

    name = "forked"
    level = "A-forked"

    def __init__(
        self,
        config: KernelConfig,
        runtime: RuntimePaths | None = None,
        *,
        mending: Mending | None = None,
    ) -> None:
        """Make a launcher; ``start`` starts the zygote, ``mending`` hears of its restarts."""
        self._config = config
        self._mended = MendedPart("the template process of the kernels", mending)
        self._closing = asyncio.Event()
        self._runtime = runtime
        self._wardens = Wardens(config)
        self._zygote: ZygoteProcess | None = None
        self._starting = asyncio.Lock()
        self._had_uids = False
        self._numbers = itertools.count(1)
        self._kernels = weakref.WeakSet[PipedKernel]()

    async def start(self) -> None:
        """Check the sandbox and start the zygote; see ``interface.Launcher``."""
        self._runtime = self._runtime or find_runtime()
        check_sandbox(self._runtime)
        self._wardens.open()
        await self._running_zygote()

    async def launch(self) -> PipedKernel:
        """Fork a fresh kernel; see ``interface.Launcher``.

        A zygote that turns out to be dying is replaced, once.
        """
        zygote = await self._running_zygote()
        try:
            return await self._launch_from(zygote)
        except KernelDiedError:
            if zygote.alive:
                raise
        return await self._launch_from(await self._running_zygote())

    async def _launch_from(self, zygote: ZygoteProcess) -> PipedKernel:
        lease = self._wardens.uids.lease() if zygote.changes_users else None
        try:
            handles = await zygote.fork(lease.uid if lease else 0)
        except BaseException:
            release(lease)
            raise
        ground = Ground(
            level=self.level,
            launcher_lives=lambda: zygote.alive,
            on_gone=partial(release, lease),
        )
        kernel_id = f"{os.getpid()}-{next(self._numbers)}"
        kernel = PipedKernel(kernel_id, handles, self._config, self._wardens, ground)
        self._kernels.add(kernel)
        try:
            await kernel.connect()
        except BaseException:
            await kernel.close()
            raise
        return kernel

    async def close(self) -> None:
        """Kill the zygote and with it all kernels; returns when they are gone."""
        self._closing.set()
        async with self._starting:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.close()
        await asyncio.gather(*(kernel.close() for kernel in list(self._kernels)))
        await self._wardens.close()

    async def _running_zygote(self) -> ZygoteProcess:
        async with self._starting:
            if self._closing.is_set():
                raise KernelDiedError("the launcher is closed", DeathCause.CLOSED)
            self._runtime = self._runtime or find_runtime()
            if self._zygote is None:
                self._zygote = await self._start_zygote(self._runtime)
            elif not self._zygote.alive:
                self._zygote = await self._another_zygote(self._zygote, self._runtime)
            return self._zygote

    async def _another_zygote(self, died: ZygoteProcess, runtime: RuntimePaths) -> ZygoteProcess:
        """Start one in place of one that died with all its kernels; whoever launches waits.

        Raises:
            MachineError: it has died too often.
        """
        cause = await died.ending()
        await died.close()
        while True:
            pause_s = self._mended.ended(cause)
            with waiting(WaitKind.MENDING, detail=cause, who=Node(Part.KERNEL)):
                await self._pause(pause_s)
            try:
                return await self._start_zygote(runtime)
            except MachineError as error:
                cause = f"did not start: {error}"

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        raise KernelDiedError("the launcher is closed", DeathCause.CLOSED)

    async def _start_zygote(self, runtime: RuntimePaths) -> ZygoteProcess:
        """Start one whose forks have user ids of their own, or where none ever did, another."""
        uids = self._wardens.uids
        zygote = self._make_zygote(runtime, uids.source)
        try:
            await zygote.start()
        except (NoHostUidsError, MachineError) as reason:
            if uids.source is None or self._had_uids:
                raise MachineError(str(reason)) from None
            uids.give_up(str(reason))
            zygote = self._make_zygote(runtime, None)
            await zygote.start()
        self._had_uids = zygote.changes_users
        return zygote

    def _make_zygote(self, runtime: RuntimePaths, uids: Source | None) -> ZygoteProcess:
        config = self._config
        return ZygoteProcess(
            runtime,
            sandbox_limits(config),
            timeout_s=config.start_timeout_s,
            modules=preloaded(config),
            uids=uids,
        )


def preloaded(config: KernelConfig) -> tuple[str, ...]:
    """Modules that a kernel has imported before its first cell."""
    return ("numpy", "numpy.random") if config.preload_numpy else ()
