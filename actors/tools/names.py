"""Which names of the notebook a tool may have: none that something else needs or takes away."""

import builtins
import keyword
import sys
from collections.abc import Mapping, Sequence

from actors.kernels.tool_specs import ToolSpec
from common.errors import ConfigError

EPISODE_TOOLS = ("notepad", "planning", "context", "submit_final_answer")
"""Names in ``agent.tools`` whose tools have a state of the episode; ``actors/agent`` makes them."""

SHARED_TOOLS = ("search", "read_page", "inspect_file", "visual_qa")
"""Names in ``agent.tools`` of the tools that every configuration may have."""

_NOTEBOOK = frozenset(("In", "Out", "get_ipython", "display", "ToolError", "exit", "quit", "_"))


def check_name(name: str, what: str) -> None:
    """Refuse a name that would replace something, or that cells would lose.

    Args:
        name: of a function or an object of the notebook.
        what: has the name; for the message.

    Raises:
        ConfigError: it is taken; says by what.
    """
    taken = _taken(name)
    if taken:
        raise ConfigError(
            f"{what} may not be called {name!r}: that is {taken}; give it another name"
        )


def check_tools(tools: Mapping[str, Sequence[ToolSpec]]) -> None:
    """Refuse tools of which one would replace another, or something of the notebook.

    Args:
        tools: the functions of each tool, by its name in ``agent.tools``.

    Raises:
        ConfigError: names both, or the tool and what it would replace.
    """
    owners: dict[str, tuple[str, bool]] = {}
    for name, specs in tools.items():
        for root, is_object in {(_root(spec), "." in spec.name) for spec in specs}:
            if root not in SHARED_TOOLS:
                check_name(root, f"agent.tools: a function of {name!r}")
            other, was_object = owners.setdefault(root, (name, is_object))
            if (other, was_object) != (name, is_object):
                raise ConfigError(
                    f"agent.tools: {other!r} and {name!r} both make {root!r} in the notebook, and "
                    "one would replace the other; rename one of them"
                )


def _root(spec: ToolSpec) -> str:
    return spec.name.partition(".")[0]


def _taken(name: str) -> str:
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "a keyword of Python"
    if name in EPISODE_TOOLS or name in SHARED_TOOLS:
        return "a tool of the agent"
    if hasattr(builtins, name) or name.startswith("__"):
        return "a name of Python itself"
    if name in sys.stdlib_module_names:
        return "a module of Python, which takes its place when a cell imports it"
    return "a name of the notebook" if name in _NOTEBOOK else ""
