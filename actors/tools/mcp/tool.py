"""Tool ``mcp.NAME``: all tools of an MCP server of the configuration as ``NAME.tool(...)``."""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

from actors.kernels.tool_specs import ToolSpec
from actors.tools.mcp.schema import McpFunction, mcp_functions, mcp_value
from actors.tools.mcp.server import McpConnection, ServerDiedError
from actors.tools.tool import ToolCall
from common.config import McpServer
from common.errors import MachineError

_logger = logging.getLogger(__name__)


class McpTool:
    """One server, shared by all episodes of the process."""

    def __init__(self, name: str, server: McpServer) -> None:
        """Offer the server called ``name``."""
        self._name = name
        self._server = server
        self._connection = McpConnection(name, server)
        self._restarting = asyncio.Lock()
        self._functions: dict[str, McpFunction] = {}

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The functions; known after ``start``."""
        return tuple(function.spec for function in self._functions.values())

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        named = (*self._server.environment, self._server.api_key_env)
        return tuple(variable for variable in named if variable)

    async def start(self) -> None:
        """Start or reach the server.

        Raises:
            MachineError: a variable it needs is not set, it does not work, or has no tools.
        """
        for variable in self.variables:
            if variable not in os.environ:
                raise MachineError(
                    f"MCP server '{self._name}' needs the environment variable {variable}; set it "
                    "where the actor runs"
                )
        await self._connection.open()
        functions = mcp_functions(self._name, self._connection.tools)
        self._functions = {function.spec.name: function for function in functions}
        if not functions:
            await self.close()
            raise MachineError(f"MCP server '{self._name}' offers no tools")

    async def call(self, call: ToolCall) -> Any:
        """Call a tool; where the server died, start it once more and ask again.

        Raises:
            TypeError: the arguments do not fit.
            TimeoutError: no answer in time.
            ValueError: the tool or the server failed.
        """
        function = self._functions[call.name]
        arguments = function.arguments(call.arguments, call.keywords)
        connection = self._connection
        try:
            result = await connection.call(function.tool, arguments)
        except ServerDiedError as death:
            _logger.warning("MCP server died name=%s tool=%s%s", self._name, function.tool, death)
            result = await self._again(connection, function, arguments)
        return mcp_value(result)

    async def close(self) -> None:
        """End the server."""
        await self._connection.close()

    async def _again(
        self, dead: McpConnection, function: McpFunction, arguments: dict[str, Any]
    ) -> Any:
        async with self._restarting:
            if self._connection is dead:
                await dead.close()
                fresh = McpConnection(self._name, self._server)
                try:
                    await fresh.open()
                except MachineError as error:
                    raise ValueError(f"{error} (it had died and was started again)") from None
                self._connection = fresh
        try:
            return await self._connection.call(function.tool, arguments)
        except ServerDiedError as death:
            raise ValueError(
                f"MCP server '{self._name}' died in {function.tool!r}, and again after a "
                f"restart{death}"
            ) from None
