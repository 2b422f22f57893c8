"""Makes the tools that all episodes of a process share, by their names in the configuration."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from actors.tools.local_search import DisabledSearch, LocalSearch
from actors.tools.tool import FunctionTool, Tool
from common.config import Config
from common.errors import ConfigError
from common.plugins import is_plugin, load_plugin

EPISODE_TOOLS = ("notepad", "planning", "context", "submit_final_answer")
"""Names in ``agent.tools`` whose tools have a state of the episode; ``actors/agent`` makes them."""

_KEY = "agent.tools"


def make_tools(
    config: Config, corpora: Mapping[str, str], *, search_disabled: bool = False
) -> dict[str, Tool]:
    """One tool for each name in ``agent.tools`` that is not a tool of the episode, not started.

    Args:
        config: the configuration of the run.
        corpora: index file of each corpus name that a task may have; empty for no corpus.
        search_disabled: ``search`` finds nothing, whatever its provider (a control experiment).

    Raises:
        ConfigError: a name is unknown, or its section of the configuration cannot work.
    """
    makers: dict[str, Callable[[], Tool]] = {
        "search": lambda: _search(config, corpora, disabled=search_disabled),
    }
    names = [name for name in config.agent.tools if name not in EPISODE_TOOLS]
    return {name: _make(name, makers) for name in dict.fromkeys(names)}


def _make(name: str, makers: Mapping[str, Callable[[], Tool]]) -> Tool:
    if is_plugin(name):
        return _plugin(name)
    if name not in makers:
        raise ConfigError(_unknown(name, [*makers, *EPISODE_TOOLS]))
    return makers[name]()


def _search(config: Config, corpora: Mapping[str, str], *, disabled: bool) -> Tool:
    if disabled or config.search.disabled:
        return DisabledSearch()
    return LocalSearch(config.search, corpora)


def _plugin(name: str) -> Tool:
    """A user's tool: a class, an object with the interface, or a function."""
    found: Any = load_plugin(name, key=_KEY)
    try:
        if inspect.isclass(found):
            found = found()
        return found if _is_tool(found) else FunctionTool(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{_KEY}: {name!r} is neither a tool nor a function that can be one: {error}"
        ) from error


def _is_tool(found: Any) -> bool:
    return all(hasattr(found, member) for member in ("specs", "start", "call", "close"))


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known tools: {', '.join(sorted(known))}"
    return f"{_KEY}: unknown tool '{name}'; {hint} (your own: package.module:name)"
