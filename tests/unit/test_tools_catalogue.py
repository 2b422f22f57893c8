"""Shared tools are made by name, and what cannot be made is named with a hint."""

import asyncio
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.tools.catalogue import make_tools, missing_variables
from actors.tools.search.index import NO_RESULTS, build_index
from actors.tools.tool import FunctionTool, Tool, ToolCall
from common.child_process import SOURCE_ROOT
from common.config import Agent, Config, McpServer, Pages, Search, Service, Tools, Vision, Web
from common.errors import ConfigError, InputError
from common.wire.records import Task

PLUGIN = '''
"""Tools of a user's package."""

def double(number: int, *, times: int = 1) -> int:
    """Double a number."""
    return number * 2 ** times

class Counter:
    """A tool with a state."""
    specs = ()
    calls = 0
    async def start(self) -> None: ...
    async def call(self, call): self.calls += 1; return self.calls
    async def close(self) -> None: ...

def leave():
    raise SystemExit(3)

async def leave_soon():
    raise SystemExit(3)

class Leaving(Counter):
    """A tool that ends itself."""
    async def call(self, call): raise SystemExit(3)

class Gone(Counter):
    def __init__(self): raise SystemExit(3)

counter = Counter()
variadic = lambda *arguments: None
number = 3
class NeedsArguments:
    def __init__(self, path): ...
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "catalogue_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "catalogue_plugin"
    sys.modules.pop("catalogue_plugin", None)


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, str]:
    for name, town in (("train", "London"), ("heldout", "Paris")):
        page = {"title": "Ada", "text": f"Ada, born in {town}."}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(page))
        build_index(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.sqlite")
    return {name: str(tmp_path / f"{name}.sqlite") for name in ("train", "heldout")}


def config_with(*tools: str, **sections: Any) -> Config:
    return Config(
        agent=Agent(tools=(*tools, "submit_final_answer")),
        tools=Tools(**sections),
        services={"eyes": Service(base_url="http://127.0.0.1:1/v1")},
    )


def call(tool: Tool, name: str, *arguments: Any, corpus: str = "train", **keywords: Any) -> Any:
    task = Task(task_id="t", question="?", answers=("a",), corpus=corpus)

    async def once() -> Any:
        await tool.start()
        try:
            return await tool.call(
                ToolCall(name=name, arguments=arguments, keywords=keywords, task=task)
            )
        finally:
            await tool.close()

    return asyncio.run(once())


def test_search_reads_the_corpus_that_the_task_names(corpora: dict[str, str]) -> None:
    tool = make_tools(config_with("search"), corpora)["search"]

    assert call(tool, "search", "ada") == "Ada, born in London."
    assert call(tool, "search", query="ada", corpus="heldout") == "Ada, born in Paris."
    with pytest.raises(ValueError, match="'t' names the corpus 'dev'; there are: train, heldout"):
        call(tool, "search", "ada", corpus="dev")


def test_search_shows_the_agent_a_query_and_nothing_else(corpora: dict[str, str]) -> None:
    for disabled in (False, True):
        tool = make_tools(config_with("search"), corpora, search_disabled=disabled)["search"]
        assert [spec.signature for spec in tool.specs] == ["search(query: str) -> str"]
        assert '"No results."' in tool.specs[0].doc


def test_a_corpus_without_index_and_a_disabled_search_find_nothing(
    corpora: dict[str, str],
) -> None:
    without = make_tools(config_with("search"), {"train": ""})["search"]
    by_argument = make_tools(config_with("search"), corpora, search_disabled=True)["search"]
    on_the_web = config_with("search", search=Search(provider="serper"))
    nowhere = make_tools(on_the_web, corpora, search_disabled=True)["search"]

    assert call(without, "search", "ada") == NO_RESULTS
    assert call(by_argument, "search", "ada") == NO_RESULTS
    assert call(nowhere, "search", "ada") == NO_RESULTS


def test_a_large_index_is_searched_off_the_event_loop(
    corpora: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.tools.search.local.SMALL_INDEX_BYTES", 0)
    tool = make_tools(config_with("search"), corpora)["search"]

    assert call(tool, "search", "ada") == "Ada, born in London."


def test_a_missing_index_is_named_when_the_tool_starts() -> None:
    tool = make_tools(config_with("search"), {"train": "/nowhere/x.sqlite"})["search"]
    with pytest.raises(InputError, match=r"'/nowhere/x\.sqlite' does not exist"):
        call(tool, "search", "ada")


@pytest.mark.parametrize(
    ("name", "sections", "message"),
    [
        ("read_page", {}, r"'read_page', so tools\.pages\.allowed_domains must list"),
        ("visual_qa", {}, r"'visual_qa', so tools\.vision\.model must be set"),
        ("visual_qa", {"vision": Vision(model="m")}, r"tools\.vision\.service must name a table"),
        (
            "search",
            {"web": Web(cache_mode="replay")},
            r"'replay' needs a folder in tools\.web\.cache",
        ),
        ("mcp.weather", {}, "unknown tool 'mcp.weather'"),
    ],
)
def test_a_tool_whose_section_cannot_work_is_a_config_error(
    name: str, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_tools(config_with(name, **sections), {})


def test_every_tool_of_the_host_has_a_signature_and_a_docstring() -> None:
    config = config_with(
        "search",
        "read_page",
        "inspect_file",
        "visual_qa",
        search=Search(provider="exa"),
        pages=Pages(allowed_domains=("*",)),
        vision=Vision(service="eyes", model="eyes"),
    )
    specs = [spec for tool in make_tools(config, {}).values() for spec in tool.specs]

    assert [spec.signature for spec in specs] == [
        "search(query: str) -> str",
        "read_page(url: str, start: int = 0, max_characters: int | None = None) -> str",
        "inspect_file(name: str, start: int = 0, max_characters: int | None = None) -> str",
        "visual_qa(image: str | bytes, question: str) -> str",
    ]
    assert all(40 < len(spec.doc) < 400 and "Task" not in spec.doc for spec in specs)


def test_variables_that_the_tools_lack_are_named_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = McpServer(command=("x",), environment=("TOKEN_A", "TOKEN_B"))
    sections = {
        "search": Search(provider="exa"),
        "pages": Pages(provider="jina"),
        "vision": Vision(service="eyes", model="eyes"),
        "mcp": {"x": server},
    }
    names = ("search", "read_page", "inspect_file", "visual_qa", "mcp.x")
    for variable in ("EXA_API_KEY", "JINA_API_KEY", "TOKEN_B"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TOKEN_A", "set")
    replay = Web(cache=str(tmp_path), cache_mode="replay")

    live = make_tools(config_with(*names, **sections), {})
    replayed = make_tools(config_with(*names, **sections, web=replay), {})

    assert missing_variables(live) == {
        "search": ("EXA_API_KEY",),
        "read_page": ("JINA_API_KEY",),
        "mcp.x": ("TOKEN_B",),
    }
    assert missing_variables(replayed) == {"mcp.x": ("TOKEN_B",)}


def test_tools_of_the_episode_are_left_to_the_agent() -> None:
    config = config_with("notepad", "planning", "context")
    assert make_tools(config, {}) == {}


def test_a_function_of_the_user_becomes_a_tool(plugin: str) -> None:
    tool = make_tools(config_with(f"{plugin}:double"), {})[f"{plugin}:double"]

    assert tool.specs[0].signature == "double(number: int, *, times: int = 1) -> int"
    assert call(tool, "double", 4, times=2) == 16


def test_calls_of_a_tool_that_never_ends_leave_all_other_threads_alone() -> None:
    release = threading.Event()

    def stuck(number: int) -> int:
        release.wait(20)
        return number

    async def others() -> str:
        tool = FunctionTool(stuck)
        task = Task(task_id="t", question="?", answers=("a",))
        await tool.start()
        for number in range(40):
            call = ToolCall(name="stuck", arguments=(number,), keywords={}, task=task)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(tool.call(call), 0.001)
        try:
            async with asyncio.timeout(5):
                return await asyncio.to_thread(lambda: "free")
        finally:
            release.set()
            await tool.close()

    assert asyncio.run(others()) == "free"


STUCK = """
import asyncio, threading
from actors.tools.tool import FunctionTool, ToolCall
from common.wire.records import Task

def stuck(): threading.Event().wait()

async def main():
    tool = FunctionTool(stuck)
    task = Task(task_id="t", question="?", answers=("a",))
    for _ in range(10):  # more than there are threads
        call = tool.call(ToolCall(name="stuck", arguments=(), keywords={}, task=task))
        await asyncio.wait([asyncio.ensure_future(call)], timeout=0.01)
    await tool.close()

asyncio.run(main())
"""


def test_a_process_can_end_while_calls_of_its_tools_do_not() -> None:
    subprocess.run([sys.executable, "-c", STUCK], cwd=SOURCE_ROOT, timeout=20, check=True)


def test_every_kind_of_parameter_gets_its_value_and_the_task_is_filled_in() -> None:
    def mixed(first: int, task: Task, /, second: int = 2, *, third: int = 3) -> list[Any]:
        return [first, task.task_id, second, third]

    assert call(FunctionTool(mixed), "mixed", 1, third=4) == [1, "t", 2, 4]
    assert call(FunctionTool(math.sqrt), "sqrt", 4) == 2.0


def test_a_tool_class_is_instantiated_and_a_tool_object_is_used_as_it_is(plugin: str) -> None:
    names = (f"{plugin}:Counter", f"{plugin}:counter")
    tools = make_tools(config_with(*names), {})

    assert call(tools[names[1]], "count") == 1
    assert sys.modules[plugin].counter.calls == 1
    assert call(tools[names[0]], "count") == 1


@pytest.mark.parametrize("name", ["leave", "leave_soon", "Leaving"])
def test_a_tool_that_calls_exit_ends_its_call_and_nothing_else(plugin: str, name: str) -> None:
    tool = make_tools(config_with(f"{plugin}:{name}"), {})[f"{plugin}:{name}"]
    with pytest.raises(ValueError, match=rf"{name} ended itself: SystemExit\(3\)"):
        call(tool, name)


def test_a_tool_whose_class_calls_exit_is_a_config_error(plugin: str) -> None:
    with pytest.raises(ConfigError, match="SystemExit: 3"):
        make_tools(config_with(f"{plugin}:Gone"), {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("serch", r"agent\.tools: unknown tool 'serch'; did you mean 'search'\?"),
        ("notpad", "did you mean 'notepad'"),
        ("zzz", "known tools: context, .*package.module:name"),
        ("nowhere.at_all:x", "cannot import 'nowhere.at_all'"),
        ("catalogue_plugin:missing", "has no 'missing'"),
        ("catalogue_plugin:number", "neither a tool nor a function"),
        ("catalogue_plugin:variadic", r"cannot take \*arguments"),
        ("catalogue_plugin:NeedsArguments", "missing 1 required positional argument"),
    ],
)
def test_a_name_that_makes_no_tool_is_a_config_error(plugin: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_tools(config_with(name), {})
