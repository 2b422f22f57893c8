"""Tools of a kernel: functions of the notebook that run on the host, and how they are called."""

import builtins
import keyword
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from actors.kernels.sandboxed.bounded import MOST_NAME

_TAKEN = ("ToolError", "get_ipython", "In", "Out", "exit", "quit")
"""Names of the notebook's own."""


ToolHandler = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
"""Runs the named tool with its arguments on the host and returns something msgpack can encode.

An exception reaches the cell as itself if it is a ValueError, TypeError, KeyError, TimeoutError or
PermissionError, else as ``ToolError``. The arguments are untrusted.
"""

called_alone: ContextVar[bool] = ContextVar("called_alone", default=True)
"""Whether the call that a handler runs came from the cell itself, which waits for the answer; False
for a call from another thread, beside which the cell may do what it likes. The notebook says so."""


class ToolError(Exception):
    """Raised by a tool handler for a failure that is none of the usual exceptions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolParameter:
    """One parameter of a tool, as its signature shows it in the notebook.

    Attributes:
        name: a Python identifier.
        annotation: text of the type, e.g. ``str``; shown only, never evaluated. Empty for none.
        required: without a default.
        default: what msgpack can carry; used where ``required`` is false.
        keyword_only: only by name.
    """

    name: str
    annotation: str = ""
    required: bool = True
    default: Any = None
    keyword_only: bool = False

    def __post_init__(self) -> None:
        """Reject what Python could not call."""
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise ValueError(f"a tool's parameter must be an identifier, got {self.name!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A function of the notebook that runs on the host.

    Attributes:
        name: ``search``, or ``notepad.add_todo`` for a method of the object ``notepad``.
        doc: docstring, shown by ``help`` and in the system prompt.
        parameters: in order; keyword-only ones last.
        returns: text of the return type; empty for none.
        is_property: read as ``context.tokens``, without parentheses; only for dotted names.
    """

    name: str
    doc: str
    parameters: tuple[ToolParameter, ...] = ()
    returns: str = ""
    is_property: bool = False

    def __post_init__(self) -> None:
        """Reject names and orders of parameters that Python does not know."""
        parts = self.name.split(".")
        if len(parts) > 2 or not all(map(_is_free, parts)) or _is_taken(self.name):
            raise ValueError(
                "a tool must be called 'name' or 'object.name', by names of Python's that neither "
                f"the language nor the notebook uses, got {self.name!r}"
            )
        if self.is_property and len(parts) != 2:
            raise ValueError(f"only 'object.name' can be a property, got {self.name!r}")
        names = [parameter.name for parameter in self.parameters]
        if len(set(names)) < len(names):
            raise ValueError(f"tool {self.name!r} has two parameters of one name: {names}")
        ranks = [2 if p.keyword_only else int(not p.required) for p in self.parameters]
        if ranks != sorted(ranks):
            raise ValueError(
                f"the parameters of tool {self.name!r} must come in this order: required, with a "
                f"default, keyword-only; got {names}"
            )

    @property
    def signature(self) -> str:
        """As the system prompt shows it: ``search(query: str, *, k: int = 3) -> str``."""
        if self.is_property:
            return f"{self.name}: {self.returns}" if self.returns else self.name
        shown = []
        for parameter in self.parameters:
            if parameter.keyword_only and "*" not in shown:
                shown.append("*")
            annotation = f": {parameter.annotation}" if parameter.annotation else ""
            equals = " = " if annotation else "="
            default = "" if parameter.required else f"{equals}{parameter.default!r}"
            shown.append(f"{parameter.name}{annotation}{default}")
        returns = f" -> {self.returns}" if self.returns else ""
        return f"{self.name}({', '.join(shown)}){returns}"

    def wire(self) -> list[Any]:
        """What ``sandboxed/toolclient.py`` makes the function from."""
        parameters = [
            [p.name, p.annotation, p.required, p.default, p.keyword_only] for p in self.parameters
        ]
        return [self.name, self.doc, parameters, self.returns, self.is_property]


def _is_free(part: str) -> bool:
    """Whether a cell can write ``part`` as a name, and Python gives it no meaning."""
    own = keyword.iskeyword(part) or (len(part) > 4 and part[:2] == part[-2:] == "__")
    return part.isidentifier() and not own and unicodedata.normalize("NFKC", part) == part


def _is_taken(name: str) -> bool:
    """Whether the notebook needs the first part of ``name``, or cannot send so long a name."""
    first = name.partition(".")[0]
    own = first in _TAKEN or not first.strip("_") or hasattr(builtins, first)
    return own or len(name) > MOST_NAME


def check_tools(tools: Sequence[ToolSpec]) -> None:
    """Raise ValueError if one of ``tools`` would stand where another does."""
    owners: dict[str, str] = {}
    names: set[str] = set()
    for tool in tools:
        first, dot, _ = tool.name.partition(".")
        other = owners.setdefault(first, tool.name)
        if tool.name in names:
            raise ValueError(f"two tools cannot both be called {tool.name!r}")
        if other != tool.name and not (dot and "." in other):
            raise ValueError(f"tools {other!r} and {tool.name!r} cannot stand at one name")
        names.add(tool.name)
