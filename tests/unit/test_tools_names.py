"""A tool takes the name of nothing else, and keeps its own."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.kernels.tool_specs import ToolSpec
from actors.tools.catalogue import make_tools
from actors.tools.names import EPISODE_TOOLS, check_name, check_tools
from actors.tools.started import started_tools
from common.config import Agent, Config
from common.errors import ConfigError

TAKEN = ("class", "match", "print", "open", *EPISODE_TOOLS, "search", "os", "In", "__slots__")


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_of_python_or_of_the_agent_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a thing may not be called .* give it another name"):
        check_name(name, "a thing")


@pytest.mark.parametrize("name", ["weather", "library", "my_search", "größe", "class_", "_x"])
def test_other_names_are_free(name: str) -> None:
    check_name(name, "a thing")


def specs(*names: str) -> tuple[ToolSpec, ...]:
    return tuple(ToolSpec(name=name, doc="") for name in names)


@pytest.mark.parametrize(
    "tools",
    [
        {"search": ["search"], "mcp.x": ["search.web"]},
        {"a": ["find"], "b": ["find"]},
        {"a": ["find.one"], "b": ["find.two"]},
        {"a": ["find", "find.one"]},
    ],
)
def test_two_tools_never_share_a_name_of_the_notebook(tools: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"both make '(search|find)' in the notebook"):
        check_tools({name: specs(*functions) for name, functions in tools.items()})


def test_a_search_of_the_user_s_own_may_be_called_search() -> None:
    check_tools({"my.package:search": specs("search"), "mcp.x": specs("x.a", "x.b")})


LATE = """
from actors.kernels.interface import ToolSpec

class Late:
    specs = ()
    async def start(self): self.specs = (ToolSpec(name="context.more", doc=""),)
    async def call(self, call): ...
    async def close(self): ...
"""


CLOSING = """
import asyncio

class Raising(Late):
    async def close(self): raise KeyError("x")

class Leaving(Late):
    async def close(self): raise SystemExit(3)

class Hanging(Late):
    async def close(self): await asyncio.Event().wait()

class Quiet(Late):
    ...
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def make(function: str) -> str:
        (tmp_path / "named_plugin.py").write_text(f"def {function}(x: str) -> str:\n    return x\n")
        sys.modules.pop("named_plugin", None)
        return f"named_plugin:{function}"

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


@pytest.mark.parametrize("name", ["print", "notepad", "submit_final_answer", "time"])
def test_a_function_of_the_user_s_own_is_checked_before_anything_starts(
    plugin: Any, name: str
) -> None:
    config = Config(agent=Agent(tools=(plugin(name), "submit_final_answer")))
    with pytest.raises(ConfigError, match=rf"'named_plugin:{name}' (may not be|is neither)"):
        make_tools(config, {})


def test_a_tool_that_cannot_be_closed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "closing_plugin.py").write_text(
        LATE.replace("context.more", "shelf.more") + CLOSING
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("actors.tools.started.CLOSE_S", 0.05)
    classes = ("Raising", "Leaving", "Hanging", "Quiet")
    names = [f"closing_plugin:{name}" for name in classes]

    async def done(name: str) -> str:
        config = Config(agent=Agent(tools=(name, "submit_final_answer")))
        async with started_tools(config, {}):
            return "done"

    assert [asyncio.run(done(name)) for name in names] == ["done"] * 4
    assert caplog.text.count("could not be closed") == 3


def test_a_tool_that_tells_its_functions_late_is_checked_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_plugin.py").write_text(LATE)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = Config(agent=Agent(tools=("late_plugin:Late", "submit_final_answer")))

    async def start() -> None:
        async with started_tools(config, {}):
            pass

    with pytest.raises(ConfigError, match=r"a function of 'late_plugin:Late' may not be called"):
        asyncio.run(start())
