"""An MCP server may list and answer what it likes: its tools are offered, or refused by name."""

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from actors.tools.catalogue import make_tools
from actors.tools.started import started_tools
from actors.tools.tool import Tool, ToolCall
from common.config import Agent, Config, McpServer, Tools
from common.errors import ConfigError
from common.wire.records import Task
from tests.web_fakes import serving

SERVER = Path(__file__).with_name("mcp_raw_server.py")


def config_of(listing: str, name: str = "raw", **keys: Any) -> Config:
    server = McpServer(command=(sys.executable, str(SERVER), listing), **keys)
    return Config(
        agent=Agent(tools=(f"mcp.{name}", "submit_final_answer")),
        tools=Tools(mcp={name: server}),
    )


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(30):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


async def specs_of(listing: str) -> list[Any]:
    tool = make_tools(config_of(listing), {})["mcp.raw"]
    await tool.start()
    try:
        return list(tool.specs)
    finally:
        await tool.close()


@pytest.mark.parametrize("listing", ["empty", "same", "endless"])
def test_a_list_of_tools_that_does_not_end_is_read_once(listing: str) -> None:
    assert [spec.name for spec in run(specs_of(listing))] == ["raw.x"]


def test_malformed_tools_are_left_out_by_name_and_the_others_offered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="actors.tools")
    specs = {spec.name: spec for spec in run(specs_of("malformed"))}

    assert list(specs)[:4] == ["raw.x", "raw.odd", "raw.slots", "raw.init"]
    assert all(len(name) < 100 for name in specs)
    for name in ("3", "None", "'tool'", "'no schema'", "'text schema'", "'list schema'", "'wide'"):
        assert f" {name} is left out" in caplog.text
    assert specs["raw.odd"].signature == (
        "raw.odd(a, b: Literal['" + "v" * 99 + "] | None = None, c=None, d=None, "
        "e: int | None = None, class_: str | None = None)"
    )
    assert len(specs["raw.odd"].doc) < 3000


@pytest.fixture(scope="module")
def answers() -> Iterator[Any]:
    """``answers(name)``: what a call of a tool gives or raises."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tool = make_tools(config_of("malformed", timeout_s=10.0), {})["mcp.raw"]
        runner.run(tool.start())
        yield lambda name: runner.run(_called(tool, name))
        runner.run(tool.close())


async def _called(tool: Tool, name: str) -> Any:
    task = Task(task_id="t", question="?", answers=("a",))
    try:
        return await tool.call(ToolCall(name=f"raw.{name}", arguments=(), keywords={}, task=task))
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("surrogate", "a?b"),
        ("structured_surrogate", {"k?": ["?"]}),
        ("broken_utf8", "a\ufffdb"),
        ("garbage_first", "after garbage"),
        ("init", "fine"),
    ],
)
def test_texts_that_are_no_unicode_are_answers_all_the_same(
    answers: Any, name: str, expected: Any
) -> None:
    assert answers(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base64", "bytes that are no base64"),
        ("kind", "did not answer 'kind' as it should"),
        ("content", "did not answer 'content' as it should"),
        ("number", "did not answer 'number' as it should"),
        ("null", "its answer is no JSON-RPC message"),
        ("list", "its answer is no JSON-RPC message"),
    ],
)
def test_answers_of_another_shape_are_errors_at_once(answers: Any, name: str, message: str) -> None:
    result = answers(name)
    assert isinstance(result, ValueError)
    assert message in str(result)
    assert len(str(result)) < 700
    assert answers("x") == "fine"


def test_an_answer_over_http_that_is_no_unicode_is_an_error_at_once() -> None:
    async def called() -> None:
        async with serving(_rpc) as fake:
            server = McpServer(url=f"{fake.url}/mcp", timeout_s=10.0)
            config = Config(
                agent=Agent(tools=("mcp.raw", "submit_final_answer")),
                tools=Tools(mcp={"raw": server}),
            )
            tool = make_tools(config, {})["mcp.raw"]
            await tool.start()
            try:
                result = await _called(tool, "x")
            finally:
                await tool.close()
            assert isinstance(result, ValueError)
            assert "MCP server 'raw' refused the call: Failed to parse" in str(result)

    run(called())


async def _rpc(request: web.Request) -> web.Response:
    if request.method != "POST":
        return web.Response(status=405)
    message = await request.json()
    server = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "raw", "version": "1"},
    }
    results = {
        "initialize": json.dumps(server),
        "tools/list": '{"tools": [{"name": "x", "inputSchema": {"type": "object"}}]}',
        "tools/call": '{"content": [{"type": "text", "text": "\\ud800"}]}',
    }
    number, result = message.get("id"), results.get(message["method"])
    if number is None:
        return web.Response(status=202)
    if result is None:
        result = '"x"'
    text = f'{{"jsonrpc": "2.0", "id": {json.dumps(number)}, "result": {result}}}'
    return web.Response(text=text, content_type="application/json")


@pytest.mark.parametrize(
    "name",
    ["search", "list", "print", "submit_final_answer", "notepad", "context", "class", "time", "os"],
)
def test_a_server_whose_name_is_taken_is_refused_before_it_starts(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"MCP server \[tools\.mcp\.{name}\] may not be call"):
        make_tools(config_of("empty", name=name), {})


def test_two_servers_of_one_name_in_the_notebook_are_refused() -> None:
    async def both() -> None:
        server = McpServer(command=(sys.executable, str(SERVER), "empty"))
        config = Config(
            agent=Agent(tools=("mcp.a-b", "mcp.a_b", "submit_final_answer")),
            tools=Tools(mcp={"a-b": server, "a_b": server}),
        )
        async with started_tools(config, {"train": ""}):
            pass

    with pytest.raises(ConfigError, match=r"'mcp\.a-b' and 'mcp\.a_b' both make 'a_b'"):
        run(both())
