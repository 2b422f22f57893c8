"""The host's end of a kernel's socket: one cell at a time, deadlines, tools, violations."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from actors.kernels.frames import Call, Done, FrameBudget, FrameReader, FrameViolation, encode
from actors.kernels.interface import CellResult, CellStatus, KernelDied, ToolHandler, ToolSpec
from actors.kernels.toolbox import Toolbox

_MOST_UNSENT_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """Limits that the host enforces."""

    grace_s: float
    output_bytes: int


@dataclass(kw_only=True, slots=True)
class _Cell:
    number: int
    started: float
    result: asyncio.Future[CellResult]
    interrupted: bool = False
    timer: asyncio.TimerHandle | None = None


class KernelSession(asyncio.Protocol):
    """Speaks the frames of ``sandboxed/serve.py`` with one kernel.

    The owner gives two functions: ``interrupt`` asks the running cell to stop, ``kill`` ends the
    sandbox. Whatever goes wrong, the session kills the sandbox and fails the running cell with
    ``KernelDied``; later calls fail with the same reason.
    """

    def __init__(
        self,
        limits: SessionLimits,
        *,
        interrupt: Callable[[], None],
        kill: Callable[[], None],
    ) -> None:
        """Make a session for a kernel that is not connected yet."""
        self._limits = limits
        self._interrupt, self._kill = interrupt, kill
        frame_bytes = max(FrameBudget().frame_bytes, 8 * limits.output_bytes)
        self._reader = FrameReader(FrameBudget(frame_bytes=frame_bytes))
        self._toolbox = Toolbox(self._send)
        self._transport: asyncio.Transport | None = None
        self._cell: _Cell | None = None
        self._cells = 0
        self._broken: str | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """False once something went wrong."""
        return self._broken is None

    async def execute(self, code: str, timeout_s: float) -> CellResult:
        """Run one cell; see ``interface.Kernel``."""
        if self._broken is not None:
            raise KernelDied(self._broken)
        if self._cell is not None:
            raise RuntimeError("a kernel runs one cell at a time")
        loop = asyncio.get_running_loop()
        self._cells += 1
        text = code.encode("utf-8", "replace").decode()
        frame = encode(["exec", self._cells, text, self._limits.output_bytes])
        cell = _Cell(number=self._cells, started=time.monotonic(), result=loop.create_future())
        self._cell = cell
        self._reader.renew()
        cell.timer = loop.call_later(timeout_s, self._on_deadline, cell, timeout_s)
        self._send(frame)
        try:
            return await cell.result
        except asyncio.CancelledError:
            self.fail("its cell was cancelled")
            raise
        finally:
            cell.timer.cancel()
            self._cell = None

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook; see ``interface.Kernel``."""
        self._toolbox.bind([tool.name for tool in tools], handler)
        self._send(encode(["tools", [tool.wire() for tool in tools]]))

    def fail(self, reason: str) -> None:
        """Kill the sandbox and fail whoever waits; the first reason is kept."""
        if self._broken is not None:
            return
        self._broken = reason
        self._toolbox.cancel()
        self._kill()
        if self._transport is not None:
            self._transport.abort()
        died = KernelDied(reason)
        if not self.ready.done():
            self.ready.set_exception(died)
            self.ready.exception()
        if self._cell is not None and not self._cell.result.done():
            self._cell.result.set_exception(died)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the kernel is gone."""
        self.fail("the kernel died")

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes that untrusted code may have written."""
        if self._broken is not None:
            return
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except FrameViolation as violation:
            self.fail(f"the kernel broke its protocol: {violation}")

    def _on_message(self, message: Any) -> None:
        if isinstance(message, Call):
            self._toolbox.begin(message)
        elif isinstance(message, Done):
            self._on_done(message)
        elif self.ready.done():
            raise FrameViolation("ready twice")
        else:
            self.ready.set_result(None)

    def _on_done(self, done: Done) -> None:
        cell = self._cell
        if cell is None or done.cell != cell.number or cell.result.done():
            raise FrameViolation(f"cell {done.cell} ended, which does not run")
        status = CellStatus.ERROR if done.failed else CellStatus.OK
        if done.failed and cell.interrupted:
            status = CellStatus.TIMED_OUT
        output = done.output[: self._limits.output_bytes]
        if done.dropped:
            output += f"\n[{done.dropped} bytes of output dropped]\n"
        cell.result.set_result(
            CellResult(
                status=status,
                output=output,
                dropped_bytes=done.dropped,
                error_name=done.error_name,
                seconds=time.monotonic() - cell.started,
            )
        )

    def _on_deadline(self, cell: _Cell, timeout_s: float) -> None:
        if cell.result.done():
            return
        cell.interrupted = True
        self._interrupt()
        grace = self._limits.grace_s
        reason = f"its cell ran {timeout_s:g} s and ignored the interrupt for {grace:g} s"
        cell.timer = asyncio.get_running_loop().call_later(grace, self.fail, reason)

    def _send(self, frame: bytes) -> None:
        if self._broken is not None or self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self.fail("the kernel does not read what it is sent")
