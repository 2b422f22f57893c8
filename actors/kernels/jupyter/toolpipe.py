"""The tool socket of a kernel whose cells travel another way, such as a Jupyter kernel."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from actors.kernels.frames import Call, FrameBudget, FrameError, FrameReader
from actors.kernels.tool_calls import ToolCalls
from actors.kernels.tool_specs import ToolHandler


class ToolPipe(asyncio.Protocol):
    """The host's end; only tool calls may come in."""

    def __init__(self, on_violation: Callable[[str], None], *, kernel_id: str) -> None:
        """Call ``on_violation`` with the reason when the kernel breaks the protocol."""
        self._on_violation = on_violation
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(FrameBudget())
        self._toolbox = ToolCalls(self._send, kernel_id=kernel_id)

    def renew(self) -> None:
        """Start the budget of the next cell."""
        self._reader.renew()

    def bind(self, names: Sequence[str], handler: ToolHandler) -> None:
        """Replace the tools."""
        self._toolbox.bind(names, handler)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

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
                if not isinstance(message, Call):
                    raise FrameError("not a tool call")
                self._toolbox.begin(message)
        except FrameError as violation:
            self.close()
            self._on_violation(str(violation))

    def close(self) -> None:
        """Give up calls in progress and the connection."""
        self._toolbox.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)
