"""Tools of MCP servers become functions of the notebook; real servers over stdio and HTTP."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from actors.tools.catalogue import make_tools
from actors.tools.tool import Tool, ToolCall
from common.config import Agent, Config, McpServer, Tools
from common.errors import ConfigError, MachineError
from common.wire.records import Task

SERVER = Path(__file__).with_name("mcp_fake_server.py")
COMMAND = (sys.executable, str(SERVER))


class Loop:
    """The event loop of the actor, kept from test to test."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(60):
                return await coroutine

        return self._runner.run(limited())


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield Loop(runner)


@pytest.fixture(scope="module")
def tool(loop: Loop) -> Iterator[Tool]:
    """A server that is shared by the tests that leave it as it was."""
    made, before = tool_of(environment=("FAKE_TOKEN",)), set(psutil.Process().children())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERPER_API_KEY", "secret")
        patch.setenv("FAKE_TOKEN", "token-123")
        loop.run(made.start())
        yield made
        loop.run(made.close())
    assert set(psutil.Process().children()) <= before


async def call(tool: Tool, name: str, *arguments: Any, **keywords: Any) -> Any:
    task = Task(task_id="t", question="?", answers=("a",))
    return await tool.call(ToolCall(name=name, arguments=arguments, keywords=keywords, task=task))


@contextlib.asynccontextmanager
async def started(tool: Tool) -> Any:
    await tool.start()
    try:
        yield tool
    finally:
        await tool.close()


def tool_of(**keys: Any) -> Tool:
    server = McpServer(**{"command": COMMAND, **keys})
    config = Config(
        agent=Agent(tools=("mcp.my-server", "submit_final_answer")),
        tools=Tools(mcp={"my-server": server}),
    )
    return make_tools(config, {})["mcp.my-server"]


@pytest.fixture
def http_server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, str(port)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "running on" in line:
                break
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.communicate()


def test_tools_of_a_server_are_functions_with_signatures_and_docstrings(tool: Tool) -> None:
    found = {spec.name: spec for spec in tool.specs}

    assert found["my_server.add"].signature == "my_server.add(a: int, b: int = 2) -> int"
    assert found["my_server.add"].doc == "Add two numbers.\n\nArgs:\n    a: first number"
    assert found["my_server.place"].signature == (
        "my_server.place(name: str, people: int | None = None) -> dict"
    )
    assert found["my_server.list_files"].signature == (
        "my_server.list_files(kind: Literal['all', 'new'], filters: list[str], "
        "deep: bool = False, limit: float = 0.5) -> list[str]"
    )
    assert found["my_server.import_"].signature == "my_server.import_(text: str) -> str"


@pytest.mark.parametrize(
    ("name", "arguments", "keywords", "expected"),
    [
        ("add", (3,), {}, 5),
        ("add", (3,), {"b": 4}, 7),
        ("place", ("Paris",), {"people": None}, {"name": "Paris", "people": 7}),
        ("list_files", ("new", ["x"]), {"deep": True}, ["new", "x", "True", "0.5"]),
        ("import_", ("größe\n",), {}, "größe\n"),
        ("picture", (), {}, b"\x89PNG picture"),
        ("picture", (), {"caption": "a cat"}, [b"\x89PNG picture", "a cat"]),
    ],
    ids=["int", "keyword", "object", "list", "text", "bytes", "several"],
)
def test_results_are_values_texts_or_bytes(
    loop: Loop, tool: Tool, name: str, arguments: Any, keywords: Any, expected: Any
) -> None:
    assert loop.run(call(tool, f"my_server.{name}", *arguments, **keywords)) == expected


def test_many_episodes_call_a_server_at_once(loop: Loop, tool: Tool) -> None:
    async def sums() -> list[int]:
        return await asyncio.gather(*(call(tool, "my_server.add", n) for n in range(100)))

    assert loop.run(sums()) == [n + 2 for n in range(100)]


@pytest.mark.parametrize(
    ("name", "arguments", "keywords", "error", "message"),
    [
        ("add", (), {}, TypeError, "missing a required argument: 'a'"),
        ("add", (1,), {"z": 2}, TypeError, "unexpected keyword argument 'z'"),
        ("fail", ("out of cheese",), {}, ValueError, "out of cheese"),
        ("add", ("three",), {}, ValueError, "valid integer"),
    ],
)
def test_arguments_that_do_not_fit_and_errors_of_a_tool_reach_the_cell(
    loop: Loop, tool: Tool, name: str, arguments: Any, keywords: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        loop.run(call(tool, f"my_server.{name}", *arguments, **keywords))


def test_a_server_sees_only_the_variables_that_are_listed(loop: Loop, tool: Tool) -> None:
    harmless = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE"}

    assert set(loop.run(call(tool, "my_server.variables"))) <= harmless | {"FAKE_TOKEN"}
    assert loop.run(call(tool, "my_server.variable", "FAKE_TOKEN")) == "token-123"


def test_a_server_that_was_killed_is_started_again_and_the_call_answered(
    loop: Loop, tool: Tool
) -> None:
    async def after_kill() -> tuple[int, int, int]:
        first = await call(tool, "my_server.pid")
        os.kill(first, 9)
        results = await asyncio.gather(*(call(tool, "my_server.add", 1) for _ in range(5)))
        return first, await call(tool, "my_server.pid"), sum(results)

    first, second, results = loop.run(after_kill())
    assert results == 15
    assert first != second
    assert not psutil.pid_exists(first)


def test_a_call_that_kills_the_server_once_is_asked_again(
    loop: Loop, tool: Tool, tmp_path: Path
) -> None:
    assert loop.run(call(tool, "my_server.die", str(tmp_path / "marker"))) == "alive"


def test_a_call_that_kills_the_server_every_time_is_named_and_others_go_on(
    loop: Loop, tool: Tool
) -> None:
    with pytest.raises(ValueError, match=r"'my-server' died in 'die', and again.*about to"):
        loop.run(call(tool, "my_server.die"))
    assert loop.run(call(tool, "my_server.add", 1)) == 3


def test_a_tool_that_does_not_answer_is_a_time_out_and_the_server_goes_on(loop: Loop) -> None:
    async def both() -> int:
        async with started(tool_of(timeout_s=2.0)) as tool:
            with pytest.raises(TimeoutError, match=r"did not answer 'wait' within 2 s"):
                await call(tool, "my_server.wait")
            return await call(tool, "my_server.add", 1)

    assert loop.run(both()) == 3


def test_a_variable_that_is_not_set_is_named_at_the_start(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_TOKEN", raising=False)
    with pytest.raises(MachineError, match=r"'my-server' needs .* FAKE_TOKEN"):
        loop.run(tool_of(environment=("FAKE_TOKEN",)).start())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/nowhere/server",), r"'my-server' \(/nowhere/server\) failed: FileNotFoundError"),
        ((sys.executable, "-S", "-c", "raise SystemExit('no licence')"), "it said: no licence"),
        (("sleep", "60"), r"\(sleep 60\) did not answer within 0.5 s"),
    ],
    ids=["missing", "fails", "silent"],
)
def test_a_server_that_does_not_start_is_named_with_its_last_words(
    loop: Loop, command: tuple[str, ...], message: str
) -> None:
    before = set(psutil.Process().children())
    limit_s = 0.5 if command[0] == "sleep" else 10.0
    with pytest.raises(MachineError, match=message):
        loop.run(tool_of(command=command, start_timeout_s=limit_s).start())
    assert set(psutil.Process().children()) <= before


def test_a_server_is_reached_over_http_and_named_when_it_is_gone(
    loop: Loop, http_server: str
) -> None:
    async def both() -> tuple[int, Any]:
        async with started(tool_of(command=(), url=http_server)) as tool:
            results = (
                await call(tool, "my_server.add", 40),
                await call(tool, "my_server.place", "X"),
            )
            os.kill(await call(tool, "my_server.pid"), 9)
            with pytest.raises(ValueError, match=r"MCP server 'my-server'"):
                await call(tool, "my_server.add", 1)
            return results

    assert loop.run(both()) == (42, {"name": "X", "people": 7})


def test_an_address_without_server_is_named(loop: Loop) -> None:
    nowhere = tool_of(command=(), url="http://127.0.0.1:9/mcp")
    with pytest.raises(MachineError, match=r"'my-server' \(http://127\.0\.0\.1:9/mcp\) failed"):
        loop.run(nowhere.start())


def test_an_unknown_server_is_a_config_error() -> None:
    config = Config(
        agent=Agent(tools=("mcp.wether", "submit_final_answer")),
        tools=Tools(mcp={"weather": McpServer(command=("x",))}),
    )
    with pytest.raises(
        ConfigError, match=r"unknown tool 'mcp\.wether'; did you mean 'mcp\.weather'"
    ):
        make_tools(config, {})
