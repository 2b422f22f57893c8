"""Messages of an MCP server, mended before the SDK reads them.

The SDK reads a message as a whole: one tool that breaks the schema hides all others, and a text
that is no valid Unicode leaves its call without an answer. Here such a tool is left out by name,
and such a text loses its lone surrogates.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from mcp import types
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types.methods import SERVER_RESULTS, validate_server_result
from pydantic import ValidationError

from actors.tools.arguments import shown, valid_text

_logger = logging.getLogger(__name__)
# It logs a traceback for each message that is mended here.
logging.getLogger("mcp.client.stdio").setLevel(logging.CRITICAL)
_LISTING = "tools/list"
_USUAL_VERSION = "2025-11-25"

Item = SessionMessage | Exception


@asynccontextmanager
async def mended(transport: Transport, server: str) -> AsyncIterator[Any]:
    """The streams of ``transport`` of the server called ``server``, its messages mended."""
    async with transport as (reads, writes):
        yield _MendedReads(reads, server), writes


class _MendedReads:
    """A stream of messages; like the SDK's own, which it wraps."""

    def __init__(self, reads: Any, server: str) -> None:
        self._reads = reads
        self._server = server
        self._version = _USUAL_VERSION

    @property
    def last_context(self) -> Any:
        return getattr(self._reads, "last_context", None)

    async def receive(self) -> Item:
        return self._mended(await self._reads.receive())

    async def aclose(self) -> None:
        await self._reads.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return self._mended(await anext(self._reads))

    async def __aenter__(self) -> Self:
        await self._reads.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return bool(await self._reads.__aexit__(kind, error, traceback))

    def _mended(self, item: Item) -> Item:
        if isinstance(item, Exception):
            item = with_valid_text(item)
        if isinstance(item, Exception):
            _logger.warning("MCP server name=%s sent no message: %s", self._server, summary(item))
            return item
        result = getattr(item.message, "result", None)
        if isinstance(result, dict):
            self._version = str(result.get("protocolVersion", self._version))
            drop_malformed_tools(result, self._version, self._server)
        return item


def with_valid_text(error: Exception) -> Item:
    """The message that could not be read for its lone surrogates alone.

    An answer that cannot be read at all becomes an error with its number, so that whoever waits
    for it hears of it; anything else stays ``error``.
    """
    line = error.errors()[0].get("input") if isinstance(error, ValidationError) else None
    value = None
    try:
        value = json.loads(line) if isinstance(line, str) else line
        valid = json.dumps(_valid(value))
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(valid, by_name=False))
    except (ValueError, TypeError, RecursionError):
        pass
    number = value.get("id") if isinstance(value, dict) and "method" not in value else None
    if not isinstance(number, int | str):
        return error
    data = types.ErrorData(code=types.INTERNAL_ERROR, message="its answer is no JSON-RPC message")
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=number, error=data))


def drop_malformed_tools(result: dict[str, Any], version: str, server: str) -> None:
    """Take out of an answer that lists tools those that break the schema of ``version``."""
    tools = result.get("tools")
    if not isinstance(tools, list) or "content" in result:  # the latter is the result of a call
        return
    wrong = _malformed(result, version if (_LISTING, version) in SERVER_RESULTS else _USUAL_VERSION)
    for index, problem in wrong.items():
        name = tools[index].get("name") if isinstance(tools[index], Mapping) else tools[index]
        _logger.warning(
            "MCP server name=%s: tool %s is left out, its description is malformed: %s",
            server,
            shown(name),
            problem,
        )
    result["tools"] = [tool for index, tool in enumerate(tools) if index not in wrong]


def summary(error: BaseException) -> str:
    """What is wrong, in one line: the first of what a schema complains about."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return f"{type(error).__name__}: {str(error)[:500]}"


def _malformed(result: Mapping[str, Any], version: str) -> dict[int, str]:
    try:
        validate_server_result(_LISTING, version, result)
    except ValidationError as error:
        return {
            problem["loc"][1]: f"{'.'.join(map(str, problem['loc'][2:]))}: {problem['msg']}"
            for problem in error.errors()
            if len(problem["loc"]) > 1 and isinstance(problem["loc"][1], int)
        }
    return {}


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, list):
        return [_valid(item) for item in value]
    if isinstance(value, dict):
        return {valid_text(key): _valid(item) for key, item in value.items()}
    return value
