"""A connection to one MCP server, kept in a task of its own.

The SDK's task groups must be left by the task that entered them, so the connection is opened and
closed in one task; calls come from any other.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import types
from mcp.client import Client, Transport
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from actors.tools.last_words import LINES, captured, joined
from actors.tools.mcp.messages import mended, summary
from common.config import McpServer
from common.errors import MachineError

MAX_PAGES = 100
"""Pages of a tool list that are read."""

MAX_TOOLS = 1000
"""Tools of one server that are offered."""

CLOSE_S = 10.0
"""A server that needs longer to end is left to the SDK's last means."""

_LONGEST_ERROR = 1000
_logger = logging.getLogger(__name__)


class ServerDiedError(Exception):
    """The connection ended; the text says what the server said last."""


class McpConnection:
    """One life of a server: from its start until it dies or is closed."""

    def __init__(self, name: str, server: McpServer) -> None:
        """Describe it; ``open`` starts it."""
        self._name = name
        self._server = server
        self._said: deque[str] = deque(maxlen=LINES)
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._opening: anyio.CancelScope | None = None
        self._client: Client | None = None
        self.tools: tuple[types.Tool, ...] = ()

    async def open(self) -> None:
        """Start or reach the server and list its tools.

        Raises:
            MachineError: it cannot be started or reached, or does not speak the protocol.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready), name=f"mcp {self._name}")
        try:
            async with asyncio.timeout(self._server.start_timeout_s):
                await asyncio.shield(ready)
        except TimeoutError:
            await self.close()
            limit_s = self._server.start_timeout_s
            raise self._fault(f"did not answer within {limit_s:g} s") from None
        except asyncio.CancelledError:
            await self.close()
            raise

    async def call(self, tool: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Call a tool.

        Raises:
            ServerDiedError: the connection ended.
            TimeoutError: no answer in time.
            ValueError: the server refused the call, or answered with something else.
        """
        client = self._client
        if client is None:
            raise ServerDiedError(self._last_words())
        try:
            async with asyncio.timeout(self._server.timeout_s):
                return await client.call_tool(tool, arguments)
        except TimeoutError:
            raise TimeoutError(
                f"MCP server '{self._name}' did not answer {tool!r} within "
                f"{self._server.timeout_s:g} s"
            ) from None
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise ServerDiedError(self._last_words()) from None
            raise ValueError(
                f"MCP server '{self._name}' refused the call: {error.message[:_LONGEST_ERROR]}"
            ) from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise ServerDiedError(self._last_words()) from None
        except (ValueError, RuntimeError) as error:  # of the SDK: no answer as its schema says
            raise ValueError(
                f"MCP server '{self._name}' did not answer {tool!r} as it should: {summary(error)}"
            ) from None

    async def close(self) -> None:
        """End the server; returns when it is gone."""
        if self._client is not None:
            self._stop.set()
        elif self._opening is not None:
            self._opening.cancel()
        if self._task is not None:
            task, self._task = self._task, None
            _, pending = await asyncio.wait([task], timeout=CLOSE_S)
            if pending:
                task.cancel()
                await asyncio.wait([task])

    async def _live(self, ready: "asyncio.Future[None]") -> None:
        try:
            async with AsyncExitStack() as stack:
                # Cancelled this way, and not as an asyncio task, the SDK still ends its child.
                self._opening = stack.enter_context(anyio.CancelScope())
                transport = await stack.enter_async_context(self._transport())
                streams = mended(transport, self._name)
                client = await stack.enter_async_context(Client(streams))
                self.tools = await _all_tools(client, self._name)
                self._client = client
                ready.set_result(None)
                await self._stop.wait()
        except Exception as error:
            text = _text(error)
            if ready.done():
                _logger.warning("MCP server ended name=%s error=%s", self._name, text)
            else:
                ready.set_exception(self._fault(f"failed: {text}"))
                ready.exception()
        finally:
            self._client = None
            if not ready.done():
                ready.cancel()

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Transport]:
        server = self._server
        if server.url:
            key = server.api_key_env
            headers = {"Authorization": f"Bearer {os.environ[key]}"} if key else None
            timeout = httpx2.Timeout(server.timeout_s, read=None)  # calls have a limit of their own
            async with httpx2.AsyncClient(headers=headers, timeout=timeout) as client:
                yield streamable_http_client(server.url, http_client=client)
            return
        environment = {name: os.environ[name] for name in server.environment}
        program, *arguments = server.command
        parameters = StdioServerParameters(
            command=program,
            args=arguments,
            env=environment,
            encoding_error_handler="replace",
        )
        async with captured(self._said) as errors:
            yield stdio_client(parameters, errlog=errors)

    def _fault(self, what: str) -> MachineError:
        where = self._server.url or " ".join(self._server.command)
        return MachineError(f"MCP server '{self._name}' ({where}) {what}{self._last_words()}")

    def _last_words(self) -> str:
        return f"; it said: {joined(self._said)}" if self._said else ""


async def _all_tools(client: Client, server: str) -> tuple[types.Tool, ...]:
    """The tools of all pages; a server whose pages do not end is read up to a limit."""
    tools: list[types.Tool] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor or cursor in seen or len(tools) > MAX_TOOLS:
            break
        seen.add(cursor)
    if cursor:
        _logger.warning("MCP server name=%s: its list of tools does not end; cut", server)
    return _first(tools, server)


def _first(tools: list[types.Tool], server: str) -> tuple[types.Tool, ...]:
    """Each tool once, and no more than may be offered."""
    named = {tool.name: tool for tool in reversed(tools)}
    kept = [tool for tool in tools if named[tool.name] is tool]
    if len(kept) > MAX_TOOLS:
        _logger.warning("MCP server name=%s: %d tools, %d shown", server, len(kept), MAX_TOOLS)
    return tuple(kept[:MAX_TOOLS])


def _text(error: BaseException) -> str:
    """The first cause inside the groups that task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return summary(error)
