"""The launcher for any Jupyter kernel, one sandbox per kernel (level B).

Ten to twenty times slower to start than the forked kernels, and its output passes through the
Jupyter protocol, whose messages are as untrusted as anything else that comes from a sandbox.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import zmq.asyncio
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from actors.kernels.bubblewrap import check_sandbox
from actors.kernels.frames import Call, FrameBudget, FrameReader, FrameViolation
from actors.kernels.interface import CellResult, CellStatus, KernelDied, ToolHandler, ToolSpec
from actors.kernels.provisioner import BwrapProvisioner
from actors.kernels.runtime import find_runtime
from actors.kernels.toolbox import Toolbox
from actors.kernels.transcript import Transcript
from common.config import Kernel as KernelConfig
from common.errors import EnvironmentFault

LEVEL = "B-jupyter"
_IDLE_WAIT_S = 1.0
_MOST_OUTPUT_BYTES = 64 << 20
_LARGEST_MESSAGE_BYTES = 4 << 20


class ToolPipe(asyncio.Protocol):
    """The host's end of a kernel's tool socket; only tool calls may come in."""

    def __init__(self, kernel: "JupyterKernel") -> None:
        """Serve ``kernel``."""
        self._kernel = kernel
        self._transport: asyncio.Transport | None = None
        self.reader = FrameReader(FrameBudget())
        self.toolbox = Toolbox(self._send)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes that untrusted code may have written."""
        try:
            for message in self.reader.feed(data):
                if not isinstance(message, Call):
                    raise FrameViolation("not a tool call")
                self.toolbox.begin(message)
        except FrameViolation as violation:
            self.close()
            self._kernel.fail(f"the kernel broke its protocol: {violation}")

    def close(self) -> None:
        """Give up calls in progress and the connection."""
        self.toolbox.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)


class JupyterKernel:
    """One kernel with its manager and client; see ``interface.Kernel``."""

    level = LEVEL

    def __init__(self, kernel_id: str, manager: AsyncKernelManager, config: KernelConfig) -> None:
        """Take over a manager that was not started."""
        self.kernel_id = kernel_id
        self._manager, self._config = manager, config
        self._client: AsyncKernelClient | None = None
        self._pipe = ToolPipe(self)
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unbound: tuple[ToolSpec, ...] = ()
        self._watch: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """False once it died or was closed."""
        return not self._broken.done()

    async def start(self) -> None:
        """Start the sandbox and wait until the kernel answers.

        Raises:
            KernelDied: it did not come up.
        """
        try:
            await self._manager.start_kernel()
            provisioner = self._provisioner
            loop = asyncio.get_running_loop()
            self._watch = loop.create_task(self._watch_death(provisioner))
            assert provisioner.tools is not None  # noqa: S101 - set by a successful launch
            await loop.create_connection(lambda: self._pipe, sock=provisioner.tools)
            self._client = self._manager.client()
            self._client.start_channels(stdin=False, hb=False, control=False)
            await self._client.wait_for_ready(timeout=self._config.start_timeout_s)
        except (RuntimeError, OSError) as error:
            raise KernelDied(f"kernel {self.kernel_id} did not start: {error}") from None

    async def execute(self, code: str, *, timeout_s: float) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
        self._pipe.reader.renew()
        if self._unbound:
            tools, self._unbound = self._unbound, ()
            binding = (
                "import actors.kernels.sandboxed.toolclient as _tools; "
                f"_tools.connect({[tool.wire() for tool in tools]!r}, globals()); del _tools"
            )
            await self._run(binding, timeout_s=self._config.start_timeout_s, silent=True)
        return await self._run(code, timeout_s=timeout_s)

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook (Python kernels only)."""
        self._pipe.toolbox.bind([tool.name for tool in tools], handler)
        self._unbound = tuple(tools)

    async def close(self) -> None:
        """Kill the sandbox; returns when it is gone."""
        self.fail("it was closed")
        if self._watch is not None:
            await self._watch
        if self._client is not None:
            self._client.stop_channels()
            self._client = None
        self._pipe.close()
        if self._manager.provisioner is not None:
            await self._manager.provisioner.wait()
            await self._manager.cleanup_resources()

    def fail(self, reason: str) -> None:
        """Kill the sandbox and fail whoever waits; the first reason is kept."""
        if self._broken.done():
            return
        self._broken.set_exception(KernelDied(f"kernel {self.kernel_id} ended: {reason}"))
        self._broken.exception()
        if self._manager.provisioner is not None:
            self._provisioner.kill_now()

    @property
    def _provisioner(self) -> BwrapProvisioner:
        return cast(BwrapProvisioner, self._manager.provisioner)

    async def _watch_death(self, provisioner: BwrapProvisioner) -> None:
        await provisioner.gone.wait()
        self.fail("the kernel died")

    async def _run(self, code: str, *, timeout_s: float, silent: bool = False) -> CellResult:
        if self._broken.done():
            self._broken.result()
        if self._client is None:
            raise KernelDied(f"kernel {self.kernel_id} is not running")
        started = time.monotonic()
        message_id = self._client.execute(
            code, silent=silent, store_history=not silent, allow_stdin=False, stop_on_error=False
        )
        transcript = Transcript(self._config.output_bytes)
        listening = asyncio.create_task(self._listen(self._client, message_id, transcript))
        try:
            reply, interrupted = await self._await_reply(message_id, timeout_s)
            await asyncio.wait({listening}, timeout=_IDLE_WAIT_S)
        except asyncio.CancelledError:
            self.fail("its cell was cancelled")
            raise
        finally:
            listening.cancel()
        return _result(reply, transcript, interrupted, time.monotonic() - started)

    async def _await_reply(self, message_id: str, timeout_s: float) -> tuple[dict[str, Any], bool]:
        """The reply to a cell, and whether the cell was interrupted."""
        assert self._client is not None  # noqa: S101 - checked by the caller
        reply = asyncio.create_task(_reply_to(self._client, message_id))
        grace_s = self._config.grace_s
        try:
            if await self._finished(reply, timeout_s):
                return reply.result(), False
            await self._manager.interrupt_kernel()
            self._client.kernel_info()  # wakes a kernel that sleeps in its event loop
            if await self._finished(reply, grace_s):
                return reply.result(), True
            self.fail(f"its cell ran {timeout_s:g} s and ignored the interrupt for {grace_s:g} s")
            self._broken.result()
            raise AssertionError
        finally:
            reply.cancel()

    async def _finished(self, reply: "asyncio.Task[dict[str, Any]]", timeout_s: float) -> bool:
        both: set[asyncio.Future[Any]] = {reply, self._broken}
        await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()
        return reply.done()

    async def _listen(self, client: AsyncKernelClient, cell: str, transcript: Transcript) -> None:
        """Collect what the cell shows, until the kernel says that it is idle again."""
        while True:
            message = await client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content.get("execution_state") == "idle":
                return
            transcript.add(kind, content)
            if transcript.dropped > _MOST_OUTPUT_BYTES:
                self.fail(f"its cell wrote more than {_MOST_OUTPUT_BYTES} bytes")
                return


class JupyterLauncher:
    """Starts Jupyter kernels of one kernelspec."""

    level = LEVEL

    def __init__(self, config: KernelConfig) -> None:
        """Make a launcher; nothing is started before ``launch``."""
        self._config = config
        self._context: zmq.asyncio.Context | None = None
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Check the sandbox and the kernelspec; see ``interface.Launcher``."""
        check_sandbox(find_runtime())
        try:
            _ = self._manager().kernel_spec
        except NoSuchKernel:
            raise EnvironmentFault(
                f"there is no Jupyter kernel '{self._config.kernelspec}' (kernel.kernelspec); "
                "`jupyter kernelspec list` names those installed"
            ) from None

    async def launch(self) -> JupyterKernel:
        """Start a fresh kernel; see ``interface.Launcher``."""
        kernel_id = f"{os.getpid()}-{next(self._numbers)}"
        kernel = JupyterKernel(kernel_id, self._manager(), self._config)
        try:
            await kernel.start()
        except BaseException:
            await kernel.close()
            raise
        return kernel

    async def close(self) -> None:
        """Close the ZeroMQ context; the kernels are closed by their owners."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _manager(self) -> AsyncKernelManager:
        if self._context is None:
            self._context = zmq.asyncio.Context()
            self._context.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE_BYTES)
        config = self._config
        manager = AsyncKernelManager(kernel_name=config.kernelspec, context=self._context)
        limits = {
            "memory_mib": config.memory_mib,
            "workspace_mib": config.workspace_mib,
            "processes": config.processes,
        }
        specification = manager.kernel_spec
        specification.interrupt_mode = "message"
        specification.metadata = {
            **specification.metadata,
            "kernel_provisioner": {"provisioner_name": "lzero-bwrap", "config": limits},
        }
        return manager


async def _reply_to(client: AsyncKernelClient, message_id: str) -> dict[str, Any]:
    """The content of the shell reply to one request."""
    while True:
        message: dict[str, Any] = await cast(Awaitable[dict[str, Any]], client.get_shell_msg())
        if message["parent_header"].get("msg_id") == message_id:
            return dict(message["content"])


def _result(
    reply: dict[str, Any], transcript: Transcript, interrupted: bool, seconds: float
) -> CellResult:
    failed = reply.get("status") != "ok"
    status = CellStatus.ERROR if failed else CellStatus.OK
    if failed and interrupted:
        status = CellStatus.TIMED_OUT
    return CellResult(
        status=status,
        output=transcript.text(),
        dropped_bytes=transcript.dropped,
        error_name=str(reply.get("ename", "Error"))[:200] if failed else None,
        seconds=seconds,
    )
