"""Runs the tool calls of one kernel on the host."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from actors.kernels.frames import Call, encode
from actors.kernels.tool_specs import ToolError, ToolHandler, called_alone
from common.waits.catalogue import Part, WaitKind
from common.waits.records import Node
from common.waits.register import waiting

_USUAL = (ValueError, TypeError, KeyError, TimeoutError, PermissionError)
_MOST_AT_ONCE = 64
_LONGEST_TEXT = 4000
_LARGEST_RESULT_BYTES = 4 << 20


class ToolCalls:
    """Tools bound to one kernel, and the calls in progress."""

    def __init__(self, send: Callable[[bytes], None], *, kernel_id: str) -> None:
        """Answer the kernel of that id through ``send``, which takes one encoded frame."""
        self._send = send
        self._kernel = Node(Part.KERNEL, kernel_id)
        self._names: frozenset[str] = frozenset()
        self._handler: ToolHandler | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._answering = asyncio.Lock()
        self._flows = asyncio.Event()
        self._flows.set()

    def bind(self, names: Sequence[str], handler: ToolHandler) -> None:
        """Replace the tools."""
        self._names, self._handler = frozenset(names), handler

    def begin(self, call: Call) -> None:
        """Start a call; its answer is sent when it is there."""
        handler = self._handler
        if handler is None or call.name not in self._names:
            self._send(_failure(call.number, ToolError(f"there is no tool {call.name!r}")))
        elif len(self._running) >= _MOST_AT_ONCE:
            self._send(_failure(call.number, ToolError(f"more than {_MOST_AT_ONCE} calls at once")))
        else:
            task = asyncio.get_running_loop().create_task(self._run(handler, call))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def pause(self) -> None:
        """The kernel has not read yet what it was sent: further results wait."""
        self._flows.clear()

    def resume(self) -> None:
        """The kernel has read what it was sent."""
        self._flows.set()

    def cancel(self) -> None:
        """Give up all calls in progress; the kernel is gone."""
        for task in self._running:
            task.cancel()

    async def _run(self, handler: ToolHandler, call: Call) -> None:
        called_alone.set(call.alone)
        try:
            with waiting(WaitKind.TOOL, call.name, who=self._kernel):
                value = await handler(call.name, call.arguments, call.keywords)
            frame = encode(["ret", call.number, value])
            if len(frame) > _LARGEST_RESULT_BYTES:
                raise ToolError(
                    f"the result of {call.name}() has {len(frame):,} bytes, "
                    f"more than {_LARGEST_RESULT_BYTES:,}"
                )
        except Exception as error:
            frame = _failure(call.number, error)
        async with self._answering:  # one after the other, each when there is room
            await self._flows.wait()
            self._send(frame)


def _failure(number: int, error: Exception) -> bytes:
    kind = next((usual for usual in _USUAL if isinstance(error, usual)), None)
    name = kind.__name__ if kind else ToolError.__name__
    own_text = isinstance(error, (*_USUAL, ToolError))
    text: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    shown = str(text) if own_text else f"{type(error).__name__}: {error}"
    shown = shown.encode("utf-8", "replace").decode()
    return encode(["err", number, name, shown[:_LONGEST_TEXT]])
