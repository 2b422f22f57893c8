"""What a tool is: one or more functions of the notebook that run on the host.

Shared tools (search, a page reader, an MCP server) serve all episodes of a process; they are made
once, by name, from the configuration. Tools with a state of the episode (notepad, context, the
final answer) are made per episode by ``actors/agent``. Both have this interface.
"""

import asyncio
import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from actors.kernels.tool_specs import ToolParameter, ToolSpec
from actors.tools.daemon_threads import DaemonThreads
from common.wire.records import Task

_THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """One call out of a cell. Name and arguments are untrusted.

    Attributes:
        name: full name of the function, e.g. ``notepad.add_todo``.
        arguments, keywords: as called; what msgpack can carry.
        task: the task of the episode. Its answers and details must not be shown.
    """

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    task: Task


@runtime_checkable
class Tool(Protocol):
    """Something that answers calls from cells. What it raises is raised in the cell."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The functions it offers; known after ``start``."""
        ...

    async def start(self) -> None:
        """Connect to whatever it needs, once per process.

        Raises:
            MachineError, ConfigError: it cannot work; the message says what to do.
        """
        ...

    async def call(self, call: ToolCall) -> Any:
        """Answer one call with something msgpack can encode."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class FunctionTool:
    """A plain function, sync or async, as a tool: its signature and docstring are the notebook's.

    A sync function runs in a thread of the tool's own: one that never ends holds up this tool, and
    nothing else of the process. A parameter annotated with ``Task`` is filled in with the task
    of the episode and is not part of the signature.
    """

    def __init__(self, function: Callable[..., Any], *, name: str = "") -> None:
        """Offer ``function`` as ``name``, else under its own name.

        Raises:
            ValueError: its signature has ``*args``, ``**keywords`` or unusual defaults.
        """
        self._function = function
        self._threads: DaemonThreads | None = None
        self._signature = inspect.signature(function, eval_str=True)
        self._task_parameter = next(
            (p.name for p in self._signature.parameters.values() if p.annotation is Task), None
        )
        shown = [p for p in self._signature.parameters.values() if p.name != self._task_parameter]
        self._shown = self._signature.replace(parameters=shown)
        self.specs: tuple[ToolSpec, ...] = (
            describe(function, self._shown, name=name or function.__name__),
        )

    async def start(self) -> None:
        """Nothing to do."""

    async def call(self, call: ToolCall) -> Any:
        """Call the function; raises TypeError where the arguments do not fit."""
        arguments = self._shown.bind(*call.arguments, **call.keywords).arguments
        if self._task_parameter is not None:
            arguments[self._task_parameter] = call.task
        bound = inspect.BoundArguments(self._signature, arguments)
        work = functools.partial(self._function, *bound.args, **bound.kwargs)
        with ending_nothing(self.specs[0].name):
            return await self._called(work)

    async def _called(self, work: Callable[[], Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await work()
        if self._threads is None:
            self._threads = DaemonThreads(_THREADS, self.specs[0].name)
        return await asyncio.wrap_future(self._threads.submit(work))

    async def close(self) -> None:
        """Give the threads back; one that is still busy is not waited for."""
        if self._threads is not None:
            self._threads.end()
            self._threads = None


class UserTool:
    """A user's tool with the interface, whose ``sys.exit`` ends no more than its call."""

    def __init__(self, tool: Tool, name: str) -> None:
        """Pass everything on to ``tool``, which the configuration calls ``name``."""
        self._tool = tool
        self._name = name

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The functions; known after ``start``."""
        return self._tool.specs

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return tuple(getattr(self._tool, "variables", ()))

    async def start(self) -> None:
        """Start it."""
        with ending_nothing(self._name):
            await self._tool.start()

    async def call(self, call: ToolCall) -> Any:
        """Pass a call on."""
        with ending_nothing(call.name):
            return await self._tool.call(call)

    async def close(self) -> None:
        """Close it."""
        with ending_nothing(self._name):
            await self._tool.close()


@contextlib.contextmanager
def ending_nothing(name: str) -> Iterator[None]:
    """Make an ordinary error of SystemExit, which would end the event loop and the process.

    Raises:
        ValueError: the code inside called ``sys.exit``.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{name} ended itself: SystemExit({error.code!r})") from error


def describe(
    function: Callable[..., Any],
    signature: inspect.Signature,
    *,
    name: str,
    is_property: bool = False,
) -> ToolSpec:
    """The description of ``function`` as the tool ``name``, with its docstring.

    Raises:
        ValueError: the signature has ``*args`` or ``**keywords``.
    """
    return ToolSpec(
        name=name,
        doc=inspect.getdoc(function) or "",
        parameters=tuple(map(_parameter, signature.parameters.values())),
        returns=annotation_text(signature.return_annotation),
        is_property=is_property,
    )


def annotation_text(annotation: Any) -> str:
    """How a signature shows a type: ``int``, ``list[str]``, ``str | None``; empty for none."""
    if annotation is inspect.Parameter.empty or annotation is inspect.Signature.empty:
        return ""
    if annotation is None or annotation is types.NoneType:
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _parameter(parameter: inspect.Parameter) -> ToolParameter:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ValueError(f"a tool cannot take *{parameter.name}; name its parameters")
    required = parameter.default is parameter.empty
    return ToolParameter(
        name=parameter.name,
        annotation=annotation_text(parameter.annotation),
        required=required,
        default=None if required else parameter.default,
        keyword_only=parameter.kind is parameter.KEYWORD_ONLY,
    )
