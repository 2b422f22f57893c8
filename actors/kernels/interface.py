"""What an episode sees of a kernel, whatever launcher made it."""

import builtins
import keyword
import math
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from actors.kernels.sandboxed.bounded import MOST_NAME
from common.errors import KernelError

_TAKEN = ("ToolError", "get_ipython", "In", "Out", "exit", "quit")
"""Names of the notebook's own."""
_LARGEST_COUNT = 2**53


class DeathCause(StrEnum):
    """Why a kernel ended."""

    MEMORY = "memory"
    """The sandbox held more than ``kernel.sandbox_memory_mib``."""
    CPU = "cpu"
    """It used more than ``kernel.cpu_s``."""
    INODES = "inodes"
    """It held more files than ``kernel.inodes``."""
    IGNORED_INTERRUPT = "ignored_interrupt"
    """A cell went on after its deadline and the grace time."""
    PROTOCOL = "protocol"
    """It sent what no kernel of ours sends, or too much, or did not read what it was sent."""
    EXITED = "exited"
    """It ended by itself, or was killed from inside."""
    FILE = "file"
    """A file could not be written into its working folder."""
    CANCELLED = "cancelled"
    """Its cell was given up on the host."""
    CLOSED = "closed"
    """It was closed, or its pool or launcher was."""
    LAUNCHER_DIED = "launcher_died"
    """The process that all kernels of its launcher hang on ended."""
    FAILED_TO_START = "failed_to_start"
    """It did not come up."""


class KernelDiedError(KernelError):
    """The kernel died, broke its protocol, or had to be killed; it cannot be used any more.

    Attributes:
        cause: why.
    """

    def __init__(self, message: str, cause: DeathCause = DeathCause.EXITED) -> None:
        """Say in ``message`` what happened, with numbers and the limit's key."""
        super().__init__(message)
        self.cause = cause


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


def check_file_name(name: str) -> None:
    """Raise ValueError if ``name`` is not a plain file name."""
    if name != name.strip() or name in ("", ".", "..") or set(name) & {"/", "\0"}:
        raise ValueError(f"a file for a kernel needs a plain name, got {name!r}")


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class CellStatus(StrEnum):
    """How a cell ended; the kernel lives on in every case."""

    OK = "ok"
    ERROR = "error"
    """An exception ended the cell."""
    TIMED_OUT = "timed_out"
    """The cell was interrupted at its deadline."""

    @classmethod
    def of(cls, *, failed: bool, interrupted: bool) -> "CellStatus":
        """The status of a cell that ended by an exception, or not, after an interrupt, or not."""
        if failed:
            return cls.TIMED_OUT if interrupted else cls.ERROR
        return cls.OK


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """What came of one cell. All of it was told by untrusted code: observation, never evidence.

    Attributes:
        output: stdout, stderr, the last expression's text and the traceback, in order. Capped:
            of a longer one the beginning and the end, with a line between them that says how much
            was dropped. Can be encoded in UTF-8.
        dropped_bytes: output beyond the cap.
        error_name: class name of the exception that ended the cell, 200 characters at most, or
            None.
        seconds: wall time, measured on the host.
        outputs: how many outputs a notebook would show: runs of one stream, displayed values and
            the traceback, each counted.
    """

    status: CellStatus
    output: str
    dropped_bytes: int
    error_name: str | None
    seconds: float
    outputs: int = 0

    def __post_init__(self) -> None:
        """Make text that anything can hold; ValueError for what no cell can have.

        Types are compared exactly: a kernel may say True where a number belongs, and what is
        recorded of a cell must be readable on the other side of any wire.
        """
        for name in ("dropped_bytes", "outputs"):
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= _LARGEST_COUNT:
                raise ValueError(f"{name} of a cell must be in 0..2**53, got {count!r:.40}")
        if type(self.seconds) not in (int, float) or not math.isfinite(self.seconds):
            raise ValueError(f"seconds of a cell must be a number, got {self.seconds!r:.40}")
        if type(self.output) is not str or type(self.error_name) not in (str, type(None)):
            raise ValueError("the output of a cell and the name of its error must be text")
        object.__setattr__(self, "output", _encodable(self.output))
        if self.error_name is not None:
            object.__setattr__(self, "error_name", _encodable(self.error_name[:MOST_NAME]))


ToolHandler = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
"""Runs the named tool with its arguments on the host and returns something msgpack can encode.

An exception reaches the cell as itself if it is a ValueError, TypeError, KeyError, TimeoutError or
PermissionError, else as ``ToolError``. The arguments are untrusted.
"""

called_alone: ContextVar[bool] = ContextVar("called_alone", default=True)
"""Whether the call that a handler runs came from the cell itself, which waits for the answer; False
for a call from another thread, beside which the cell may do what it likes. The notebook says so."""


class LiveKernel(Protocol):
    """One sandboxed notebook kernel; variables persist from cell to cell."""

    @property
    def kernel_id(self) -> str:
        """Names this kernel in logs."""

    @property
    def level(self) -> str:
        """Isolation level, see docs/sandbox.md."""

    @property
    def alive(self) -> bool:
        """False once it died or was closed."""

    async def execute(
        self, code: str, *, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; ``output_bytes`` lowers the configured output limit for this cell.

        Raises:
            KernelDiedError: it died, broke its protocol, or did not stop in the grace time after an
                interrupt and was killed.
        """

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook that call ``handler`` on the host.

        They stay what a cell finds under their names, whatever cells before it did to these.

        Raises:
            ValueError: two of them cannot stand side by side.
        """

    async def put_file(self, name: str, data: bytes) -> None:
        """Write a file into the notebook's working folder, /workspace.

        Raises:
            ValueError: ``name`` is not a plain file name.
            KernelDiedError: it died, or the file did not fit (the message says so).
        """

    async def close(self) -> None:
        """Kill the sandbox; returns when it is gone. May be called any number of times."""


class Launcher(Protocol):
    """Starts kernels of one kind."""

    @property
    def level(self) -> str:
        """Isolation level of its kernels."""

    async def start(self) -> None:
        """Get ready to launch.

        Raises:
            MachineError: this machine cannot run the sandbox; the message says what to do.
        """

    async def launch(self) -> LiveKernel:
        """Start a fresh kernel.

        Raises:
            KernelDiedError: it did not come up.
        """

    async def close(self) -> None:
        """End everything that was started."""
