"""The host's end of a kernel's socket: one cell at a time, deadlines, tools, violations."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from actors.kernels.frames import (
    Call,
    Done,
    Exited,
    Filed,
    FrameBudget,
    FrameError,
    FrameReader,
    encode,
)
from actors.kernels.interface import (
    CellResult,
    CellStatus,
    DeathCause,
    KernelDiedError,
    check_file_name,
)
from actors.kernels.sandboxed.clip import MOST_MARK
from actors.kernels.tool_calls import ToolCalls
from actors.kernels.tool_specs import ToolHandler, ToolSpec, check_tools

_MOST_UNSENT_BYTES = 16 << 20
_FILE_PIECE_BYTES = 256 << 10
_FILE_PIECE_TIMEOUT_S = 10.0
_WORDLESS_WAIT_S = 0.1
"""How long the reason of a death without a last word may take to show elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """Limits that the host enforces."""

    grace_s: float
    output_bytes: int


@dataclass(kw_only=True, slots=True)
class _Cell:
    number: int
    started: float
    output_bytes: int
    result: asyncio.Future[CellResult]
    interrupted: bool = False
    timer: asyncio.TimerHandle | None = None


class KernelSession(asyncio.Protocol):
    """Speaks the frames of ``sandboxed/serve.py`` with one kernel.

    The owner gives three functions: ``interrupt`` asks the running cell to stop, ``kill`` ends the
    sandbox, and ``explain`` names the cause of an exit code, or of None when there is none.
    Whatever goes wrong, the session kills the sandbox and fails the running cell with
    ``KernelDiedError``; later calls fail with the same reason.
    """

    def __init__(
        self,
        kernel_id: str,
        limits: SessionLimits,
        *,
        interrupt: Callable[[], None],
        kill: Callable[[], None],
        explain: Callable[[int | None], tuple[str, DeathCause]],
    ) -> None:
        """Make a session for a kernel that is not connected yet."""
        self._kernel_id = kernel_id
        self._limits = limits
        self._interrupt, self._kill, self._explain = interrupt, kill, explain
        self._reader = FrameReader(FrameBudget.for_output(limits.output_bytes))
        self._toolbox = ToolCalls(self._send, kernel_id=kernel_id)
        self._transport: asyncio.Transport | None = None
        self._cell: _Cell | None = None
        self._cells = 0
        self._filing: asyncio.Future[str | None] | None = None
        self._died: KernelDiedError | None = None
        self._lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """False once something went wrong."""
        return self._died is None and not self._lost

    async def execute(
        self, code: str, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
        self._check_idle()
        loop = asyncio.get_running_loop()
        self._cells += 1
        text = code.encode("utf-8", "replace").decode()
        most = self._limits.output_bytes
        cell = _Cell(
            number=self._cells,
            started=time.monotonic(),
            output_bytes=most if output_bytes is None else max(0, min(most, output_bytes)),
            result=loop.create_future(),
        )
        frame = encode(["exec", cell.number, text, cell.output_bytes])
        self._cell = cell
        self._reader.renew()
        cell.timer = loop.call_later(timeout_s, self._on_deadline, cell, timeout_s)
        self._send(frame)
        try:
            return await cell.result
        except asyncio.CancelledError:
            self.fail("its cell was cancelled", DeathCause.CANCELLED)
            raise
        finally:
            cell.timer.cancel()
            self._cell = None

    async def put_file(self, name: str, data: bytes) -> None:
        """Write a file piece by piece; see ``interface.Kernel``."""
        check_file_name(name)
        self._check_idle()
        view = memoryview(data)
        for start in range(0, max(len(data), 1), _FILE_PIECE_BYTES):
            piece = bytes(view[start : start + _FILE_PIECE_BYTES])
            if problem := await self._put_piece(name, piece, goes_on=start > 0):
                self.fail(
                    f"the file {name!r} of {len(data)} bytes could not be written into its "
                    f"/workspace ({problem}; its size is kernel.workspace_mib)",
                    DeathCause.FILE,
                )
                self._check_idle()

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook; see ``interface.Kernel``."""
        check_tools(tools)
        self._toolbox.bind([tool.name for tool in tools], handler)
        self._send(encode(["tools", [tool.wire() for tool in tools]]))

    def fail(self, reason: str, cause: DeathCause) -> None:
        """Kill the sandbox and fail whoever waits; the first reason is kept."""
        if self._died is not None:
            return
        self._died = KernelDiedError(f"kernel {self._kernel_id} ended: {reason}", cause)
        self._toolbox.cancel()
        self._kill()
        if self._transport is not None:
            self._transport.abort()
        if not self.ready.done():
            self.ready.set_exception(self._died)
            self.ready.exception()
        if self._cell is not None and not self._cell.result.done():
            self._cell.result.set_exception(self._died)
        if self._filing is not None and not self._filing.done():
            self._filing.set_exception(self._died)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, or when the sandbox is gone: say why, once that can be known."""
        if not self._lost and self._died is None:
            loop = asyncio.get_running_loop()
            loop.call_later(_WORDLESS_WAIT_S, lambda: self.fail(*self._explain(None)))
        self._lost = True

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._toolbox.pause()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._toolbox.resume()

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes that untrusted code may have written."""
        try:
            for message in self._reader.feed(data):
                if self._died is None:
                    self._on_message(message)
        except FrameError as violation:
            self.fail(f"it broke its protocol: {violation}", DeathCause.PROTOCOL)

    def _check_idle(self) -> None:
        if self._died is not None:
            raise KernelDiedError(str(self._died), self._died.cause)
        if self._cell is not None or self._filing is not None:
            raise RuntimeError("a kernel does one thing at a time")

    async def _put_piece(self, name: str, piece: bytes, *, goes_on: bool) -> str | None:
        """Write one piece; what went wrong, or None."""
        self._filing = asyncio.get_running_loop().create_future()
        self._reader.renew()
        try:
            self._send(encode(["file", name, piece, goes_on]))
            return await asyncio.wait_for(self._filing, _FILE_PIECE_TIMEOUT_S)
        except TimeoutError:
            return f"no answer within {_FILE_PIECE_TIMEOUT_S:g} s"
        finally:
            self._filing = None

    def _on_message(self, message: Any) -> None:
        if isinstance(message, Call):
            self._toolbox.begin(message)
        elif isinstance(message, Done):
            self._on_done(message)
        elif isinstance(message, Filed):
            if self._filing is None or self._filing.done():
                raise FrameError("a file was written, which nobody sent")
            self._filing.set_result(message.problem)
        elif isinstance(message, Exited):
            self.fail(*self._explain(message.code))
        elif self.ready.done():
            raise FrameError("ready twice")
        else:
            self.ready.set_result(None)

    def _on_done(self, done: Done) -> None:
        cell = self._cell
        if cell is None or done.cell != cell.number or cell.result.done():
            raise FrameError(f"cell {done.cell} ended, which does not run")
        try:
            result = CellResult(
                status=CellStatus.of(failed=done.failed, interrupted=cell.interrupted),
                output=done.output[: cell.output_bytes + MOST_MARK],
                dropped_bytes=done.dropped,
                error_name=done.error_name,
                seconds=time.monotonic() - cell.started,
                outputs=done.outputs,
            )
        except ValueError as error:
            raise FrameError(str(error)) from error
        cell.result.set_result(result)

    def _on_deadline(self, cell: _Cell, timeout_s: float) -> None:
        if cell.result.done():
            return
        cell.interrupted = True
        self._interrupt()
        grace = self._limits.grace_s
        reason = f"its cell ran {timeout_s:g} s and ignored the interrupt for {grace:g} s"
        cell.timer = asyncio.get_running_loop().call_later(
            grace, self.fail, reason, DeathCause.IGNORED_INTERRUPT
        )

    def _send(self, frame: bytes) -> None:
        if self._died is not None or self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self.fail("it does not read what it is sent", DeathCause.PROTOCOL)
