"""Jupyter messages to and from one kernel; what comes is as untrusted as all it sends."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

from jupyter_client.asynchronous import AsyncKernelClient

from actors.kernels.jupyter.transcript import CellTranscript

_MOST_OUTPUT_BYTES = 64 << 20
_MOST_MESSAGES = 1 << 16
_MOST_STRAY_MESSAGES = 16


class JupyterChannel:
    """Cells out, replies and output in, within bounds.

    Whatever breaks a bound is told to ``on_violation``, which must end the kernel; the wait is then
    cancelled.
    """

    def __init__(
        self, client: AsyncKernelClient, on_violation: Callable[[str], None], *, listens: bool
    ) -> None:
        """Connect; ``listens`` to what cells show."""
        self._client, self._on_violation = client, on_violation
        client.start_channels(iopub=listens, stdin=False, hb=False, control=False)

    async def wait_for_ready(self, timeout_s: float) -> None:
        """Wait until the kernel answers on all channels.

        Raises:
            RuntimeError: it did not, or died.
        """
        await self._client.wait_for_ready(timeout=timeout_s)

    def ask_for_info(self) -> str:
        """Ask the kernel what it is; the id of the request."""
        return str(self._client.kernel_info())

    def send_cell(self, code: str, limit: int, *, silent: bool = False) -> str:
        """Ask the kernel to run a cell that may show ``limit`` bytes; the id of the request."""
        content = {
            **{"code": code, "silent": silent, "store_history": not silent},
            **{"user_expressions": {}, "allow_stdin": False, "stop_on_error": False},
        }
        metadata = {"output_bytes": limit}
        message = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    async def reply_to(self, request: str) -> dict[str, Any]:
        """The content of the reply to a request."""
        for _ in range(_MOST_STRAY_MESSAGES):
            message = await self._next("get_shell_msg")
            if message["parent_header"].get("msg_id") == request:
                return cast(dict[str, Any], message["content"])
        self._on_violation("replies that nobody asked for")
        raise asyncio.CancelledError

    async def listen(self, request: str, transcript: CellTranscript) -> None:
        """Collect what the cell shows, until the kernel says that it is idle again."""
        for _ in range(_MOST_MESSAGES):
            message = await self._next("get_iopub_msg")
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message.get("msg_type"), message["content"]
            if kind == "status" and content.get("execution_state") == "idle":
                return
            transcript.add(kind, content)
            if transcript.sent > _MOST_OUTPUT_BYTES:
                break
        most = f"{_MOST_OUTPUT_BYTES} bytes or {_MOST_MESSAGES} messages"
        self._on_violation(f"a cell that sends more than {most}")

    def close(self) -> None:
        """Disconnect."""
        self._client.stop_channels()

    async def _next(self, getter: str) -> dict[str, Any]:
        """The next well-formed message of a channel."""
        get = cast(Callable[[], Awaitable[dict[str, Any]]], getattr(self._client, getter))
        for _ in range(_MOST_STRAY_MESSAGES):
            with contextlib.suppress(Exception):  # whatever it sends, it is the kernel's fault
                message = await get()
                if all(isinstance(message[key], dict) for key in ("content", "parent_header")):
                    return message
        self._on_violation("malformed messages")
        raise asyncio.CancelledError
