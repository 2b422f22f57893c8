"""Launchers that start a process of its own per kernel, see ``sandboxed/single.py``."""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from actors.kernels import sandbox_end
from actors.kernels.bubblewrap import HOST_UID
from actors.kernels.descriptors import readable
from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.limits.host_uids import release
from actors.kernels.limits.wardens import Wardens
from actors.kernels.piped import Ground, Handles, PipedKernel
from actors.kernels.runtime import RuntimePaths, find_runtime
from actors.kernels.sandboxed.isolation import Limits
from common.config import Kernel as KernelConfig

_MESSAGE_BYTES = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How one kernel is started.

    Attributes:
        start: starts the process with these descriptors as its standard input and error.
        clean_up: called when everything of the kernel is gone, or when it did not start.
    """

    start: Callable[[int, int], "subprocess.Popen[bytes]"]
    clean_up: Callable[[], None] = lambda: None


class SingleLauncher(ABC):
    """Starts one process per kernel; subclasses say how."""

    level: str
    _kill_signal = signal.SIGKILL
    _private_files = True

    def __init__(self, config: KernelConfig) -> None:
        """Make a launcher; nothing is started before ``launch``."""
        self._config = config
        self._runtime: RuntimePaths | None = None
        self._wardens = Wardens(config)
        self._numbers = itertools.count(1)
        self._kernels: dict[str, PipedKernel] = {}
        self._closed = False

    async def start(self) -> None:
        """Find the kernels' Python; see ``interface.Launcher``."""
        self._runtime = find_runtime()
        self._wardens.open()

    async def launch(self) -> PipedKernel:
        """Start a fresh kernel; see ``interface.Launcher``."""
        self._runtime = self._runtime or find_runtime()
        with ExitStack() as held:
            lease = self._wardens.uids.lease() if os.geteuid() == 0 else None
            held.callback(release, lease)
            plan = self._plan(self._runtime, lease.uid if lease else HOST_UID)
            held.callback(plan.clean_up)
            process, handles = await start_single(plan.start, self._config.start_timeout_s)
            kernel = self._adopt(process, handles, held.pop_all())
        try:
            if self._closed:
                raise KernelDiedError("the launcher is closed", DeathCause.CLOSED)
            await kernel.connect()
        except BaseException:
            await kernel.close()
            raise
        return kernel

    async def close(self) -> None:
        """Close the kernels that are left; see ``interface.Launcher``."""
        self._closed = True
        await asyncio.gather(*(kernel.close() for kernel in list(self._kernels.values())))
        await self._wardens.close()

    @abstractmethod
    def _plan(self, runtime: RuntimePaths, uid: int) -> Plan:
        """How to start the next kernel; as root it is ``uid`` on the host."""

    def _adopt(
        self, process: "subprocess.Popen[bytes]", handles: Handles, held: ExitStack
    ) -> PipedKernel:
        kernel_id = f"{os.getpid()}-{next(self._numbers)}"

        def clean_up() -> None:
            process.wait()
            held.close()
            self._kernels.pop(kernel_id, None)

        ground = Ground(
            level=self.level,
            kill_signal=self._kill_signal,
            private_files=self._private_files,
            clean_up=clean_up,
        )
        kernel = PipedKernel(kernel_id, handles, self._config, self._wardens, ground)
        self._kernels[kernel_id] = kernel
        return kernel


def single_command(
    python: str, limits: Limits, mode: str, folder: str, modules: tuple[str, ...]
) -> list[str]:
    """The command line of such a process; ``mode`` is ``sandboxed`` or ``bare``."""
    command = [python, "-s", "-P", "-m", "actors.kernels.sandboxed.single"]
    return [*command, json.dumps(asdict(limits)), mode, folder, *modules]


async def start_single(
    start: Callable[[int, int], "subprocess.Popen[bytes]"], timeout_s: float
) -> tuple["subprocess.Popen[bytes]", Handles]:
    """Start it and wait for its handles.

    Raises:
        KernelDiedError: it did not come up; its last words are in the message.
    """
    control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection, their_connection = socket.socketpair()
    descriptors: list[int] = []
    with control, their_control, their_connection, tempfile.TemporaryFile() as errors:
        try:
            process = start(their_control.fileno(), errors.fileno())
        except BaseException:
            connection.close()
            raise
        their_control.close()
        control.setblocking(False)
        try:
            socket.send_fds(control, [b"start"], [their_connection.fileno()])
            their_connection.close()
            async with asyncio.timeout(timeout_s):
                descriptors.append(await _next_handle(control))
                descriptors.append(await _next_handle(control))
        except BaseException as error:
            connection.close()
            await asyncio.shield(_end(process, descriptors))
            if not isinstance(error, OSError | KernelDiedError):
                raise
            errors.seek(0)
            words = errors.read()[-2000:].decode("utf-8", "replace").strip()
            reason = " ".join(filter(None, [str(error) or "time-out", words]))
            raise KernelDiedError(
                f"a kernel did not start: {reason}", DeathCause.FAILED_TO_START
            ) from None
    connection.setblocking(False)
    return process, Handles(connection=connection, init=descriptors[0], kernel=descriptors[1])


async def _next_handle(control: socket.socket) -> int:
    await readable(control.fileno())
    text, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise KernelDiedError(text.decode("utf-8", "replace") or "it died while it was set up")
    return descriptors[0]


async def _end(process: "subprocess.Popen[bytes]", descriptors: list[int]) -> None:
    await sandbox_end.end(process)
    for descriptor in descriptors:
        os.close(descriptor)
