"""One kernel of the Jupyter launcher."""

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any, cast

from jupyter_client.manager import AsyncKernelManager

from actors.kernels.exits import explain_exit
from actors.kernels.interface import (
    CellResult,
    CellStatus,
    DeathCause,
    KernelDiedError,
    check_file_name,
)
from actors.kernels.jupyter.channel import JupyterChannel
from actors.kernels.jupyter.provisioner import BwrapProvisioner
from actors.kernels.jupyter.toolpipe import ToolPipe
from actors.kernels.jupyter.transcript import CellTranscript
from actors.kernels.limits.cgroup import Cage
from actors.kernels.limits.procfs import host_pid
from actors.kernels.limits.wardens import Wardens
from actors.kernels.limits.watchdog import Watched, memory_reason
from actors.kernels.sandboxed.clip import MOST_MARK
from actors.kernels.tool_specs import ToolHandler, ToolSpec, check_tools
from common.config import Kernel as KernelConfig
from common.errors import KernelError, MachineError
from common.wire.sockets import SocketError

LEVEL = "B-jupyter"
OBSERVED_KERNEL = "actors.kernels.sandboxed.observed.ObservedKernel"
"""The kernel class that ipykernel runs for us, see there."""
_IDLE_WAIT_S = 1.0
_FILE_PIECE_BYTES = 256 << 10


class JupyterKernel:
    """One kernel with its manager and client; see ``interface.Kernel``."""

    level = LEVEL

    def __init__(
        self,
        kernel_id: str,
        manager: AsyncKernelManager,
        config: KernelConfig,
        wardens: Wardens,
        *,
        observed: bool,
    ) -> None:
        """Take over a manager that was not started; ``observed`` if it runs ``OBSERVED_KERNEL``."""
        self.kernel_id = kernel_id
        self._manager, self._config, self._observed = manager, config, observed
        self._wardens, self._warded = wardens, False
        self._cage: Cage | None = None
        self._channel: JupyterChannel | None = None
        self._pipe = ToolPipe(self._on_violation, kernel_id=kernel_id)
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
            KernelDiedError: it did not come up.
        """
        timeout_s = self._config.start_timeout_s
        arguments = ["--no-stdout", "--no-stderr", "--IPKernelApp.capture_fd_output=False"]
        arguments.append(f"--IPKernelApp.kernel_class={OBSERVED_KERNEL}")
        try:
            await self._manager.start_kernel(extra_arguments=arguments if self._observed else [])
            await self._connect_tools()
            client = self._manager.client(context=self._manager.context)  # else one of its own
            self._channel = channel = JupyterChannel(
                client, self._on_violation, listens=not self._observed
            )
            if not self._observed:
                await channel.wait_for_ready(timeout_s)
            elif await self._reply(channel.ask_for_info(), timeout_s) is None:
                raise RuntimeError(f"it did not answer within {timeout_s:g} s")
        except (RuntimeError, OSError, SocketError, KernelDiedError, MachineError) as error:
            reason = f"kernel {self.kernel_id} did not start: {error}"
            raise KernelDiedError(reason, DeathCause.FAILED_TO_START) from None

    async def execute(
        self, code: str, *, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
        self._check_alive()
        self._ward()
        self._wardens.watchdog.rouse(self.kernel_id)
        self._pipe.renew()
        await self._bind()
        most = self._config.output_bytes
        limit = most if output_bytes is None else max(0, min(most, output_bytes))
        started = time.monotonic()
        text = code.encode("utf-8", "replace").decode()
        run = self._run_observed if self._observed else self._run_watched
        try:
            return await run(text, timeout_s, limit, started)
        except asyncio.CancelledError:
            self.fail("its cell was cancelled", DeathCause.CANCELLED)
            raise

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook (Python kernels only)."""
        check_tools(tools)
        self._pipe.bind([tool.name for tool in tools], handler)
        self._unbound = tuple(tools)

    async def put_file(self, name: str, data: bytes) -> None:
        """Write a file into /workspace (Python kernels only); see ``interface.Kernel``."""
        check_file_name(name)
        self._check_alive()
        language = getattr(self._manager.kernel_spec, "language", "")
        if language != "python":
            raise KernelError(
                f"kernel {self.kernel_id} takes no files: its language is {language}, not Python"
            )
        for start in range(0, max(len(data), 1), _FILE_PIECE_BYTES):
            piece = base64.b64encode(data[start : start + _FILE_PIECE_BYTES])
            problem = await self._run_silent(f"put_piece({name!r}, {piece!r}, {start > 0})")
            if problem:
                self.fail(
                    f"the file {name!r} of {len(data)} bytes could not be written into its "
                    f"/workspace ({problem}; its size is kernel.workspace_mib)",
                    DeathCause.FILE,
                )
                self._check_alive()

    async def close(self) -> None:
        """Kill the sandbox; returns when it is gone."""
        self.fail("it was closed", DeathCause.CLOSED)
        if self._watch is not None:
            await self._watch
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._pipe.close()
        if self._manager.provisioner is not None:
            await self._manager.provisioner.wait()
            await self._manager.cleanup_resources()

    def fail(self, reason: str, cause: DeathCause) -> None:
        """Kill the sandbox and fail whoever waits; the first reason is kept."""
        if self._broken.done():
            return
        died = KernelDiedError(f"kernel {self.kernel_id} ended: {reason}", cause)
        self._broken.set_exception(died)
        self._broken.exception()
        if self._manager.provisioner is not None:
            self._provisioner.kill_now()

    @property
    def _provisioner(self) -> BwrapProvisioner:
        return cast(BwrapProvisioner, self._manager.provisioner)

    @property
    def _open(self) -> JupyterChannel:
        if self._channel is None:
            raise KernelDiedError(f"kernel {self.kernel_id} is not running", DeathCause.CLOSED)
        return self._channel

    def _check_alive(self) -> None:
        if self._broken.done():
            raise self._death()

    def _death(self) -> KernelDiedError:
        error = cast(KernelDiedError, self._broken.exception())
        return KernelDiedError(str(error), error.cause)

    async def _connect_tools(self) -> None:
        loop = asyncio.get_running_loop()
        self._cage = self._wardens.cage(self.kernel_id, self._provisioner.pidfds)
        self._watch = loop.create_task(self._watch_death(self._provisioner))
        await loop.create_connection(lambda: self._pipe, sock=self._provisioner.take_tools())

    async def _watch_death(self, provisioner: BwrapProvisioner) -> None:
        await provisioner.wait_gone()
        self._wardens.watchdog.forget(self.kernel_id)
        if self._cage is not None and self._cage.out_of_memory():
            limit = self._config.sandbox_memory_mib
            self.fail(memory_reason(limit * 2**20, limit), DeathCause.MEMORY)
        code = provisioner.exit_code()
        if code is None:
            self.fail("the first process of its sandbox was killed", DeathCause.EXITED)
        else:
            self.fail(*explain_exit(code, self._config.cpu_s))
        if self._cage is not None:
            self._cage.remove()

    def _ward(self) -> None:
        """From its first cell on, a kernel can use up things."""
        if not self._warded:
            self._warded = True
            pid = host_pid(self._provisioner.pidfds[0])
            self._wardens.watchdog.watch(
                Watched(name=self.kernel_id, pid=pid, end=self.fail, cage=self._cage)
            )

    def _on_violation(self, reason: str) -> None:
        self.fail(f"it broke its protocol: {reason}", DeathCause.PROTOCOL)

    async def _bind(self) -> None:
        """Make the tools' functions, in the kernel that is idle now."""
        if self._unbound:
            tools, self._unbound = self._unbound, ()
            connect = "connect" if self._observed else "connect_foreign"
            await self._run_silent(f"{connect}({[tool.wire() for tool in tools]!r}, globals())")

    async def _run_silent(self, call: str) -> str | None:
        """Call a function of ``sandboxed/guest.py``; what went wrong, or None."""
        code = f"__import__('actors.kernels.sandboxed.guest', fromlist=['_']).{call}"
        timeout_s = self._config.start_timeout_s
        reply = await self._reply(self._open.send_cell(code, 0, silent=True), timeout_s)
        if reply is None:
            return f"no answer within {timeout_s:g} s"
        return None if reply.get("status") == "ok" else _text(reply.get("evalue"), "error")[:200]

    async def _run_observed(
        self, code: str, timeout_s: float, limit: int, started: float
    ) -> CellResult:
        """Run a cell in a kernel that tells in its reply what the cell showed."""
        request = self._open.send_cell(code, limit)
        reply, interrupted = await self._reply_or_stop(request, timeout_s)
        match reply.get("observation"):
            case [str(text), int(dropped), int(outputs)]:
                shown = (text[: limit + MOST_MARK], dropped, outputs)
                return self._result(reply, interrupted, started, shown)
        raise self._violated("a reply without an observation")

    async def _run_watched(
        self, code: str, timeout_s: float, limit: int, started: float
    ) -> CellResult:
        """Run a cell in a kernel that shows what it does by messages."""
        request = self._open.send_cell(code, limit)
        transcript = CellTranscript(limit)
        listening = asyncio.create_task(self._open.listen(request, transcript))
        try:
            reply, interrupted = await self._reply_or_stop(request, timeout_s)
            await asyncio.wait({listening}, timeout=_IDLE_WAIT_S)
            if not listening.done():
                transcript.end_early()
        finally:
            listening.cancel()
        return self._result(reply, interrupted, started, transcript.finish())

    def _result(
        self,
        reply: dict[str, Any],
        interrupted: bool,
        started: float,
        shown: tuple[str, int, int],
    ) -> CellResult:
        failed = reply.get("status") != "ok"
        output, dropped, outputs = shown
        try:
            return CellResult(
                status=CellStatus.of(failed=failed, interrupted=interrupted),
                output=output,
                dropped_bytes=dropped,
                error_name=_text(reply.get("ename"), "Error") if failed else None,
                seconds=time.monotonic() - started,
                outputs=outputs,
            )
        except ValueError as error:
            raise self._violated(str(error)) from error

    def _violated(self, reason: str) -> KernelDiedError:
        """End the kernel for a reply that none of ours sends; how it ended."""
        self._on_violation(reason)
        return self._death()

    async def _reply_or_stop(self, request: str, timeout_s: float) -> tuple[dict[str, Any], bool]:
        """The reply to a cell, and whether the cell was interrupted at its deadline."""
        waiting = asyncio.create_task(self._open.reply_to(request))
        try:
            if await self._finished(waiting, timeout_s):
                return waiting.result(), False
            await self._manager.interrupt_kernel()
            grace_s = self._config.grace_s
            if not await self._finished(waiting, grace_s):
                reason = f"its cell ran {timeout_s:g} s and ignored the interrupt for {grace_s:g} s"
                self.fail(reason, DeathCause.IGNORED_INTERRUPT)
                self._check_alive()
            return waiting.result(), True
        finally:
            waiting.cancel()

    async def _reply(self, request: str, timeout_s: float) -> dict[str, Any] | None:
        """The reply to a request of ours, or None if there was none in time."""
        waiting = asyncio.create_task(self._open.reply_to(request))
        try:
            return waiting.result() if await self._finished(waiting, timeout_s) else None
        finally:
            waiting.cancel()

    async def _finished(self, waiting: "asyncio.Task[dict[str, Any]]", timeout_s: float) -> bool:
        both: set[asyncio.Future[Any]] = {waiting, self._broken}
        await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._check_alive()
        return waiting.done()


def _text(value: Any, otherwise: str) -> str:
    """``value`` where it is text; anything else may be endless, or too deep to be shown."""
    return value if isinstance(value, str) else otherwise
