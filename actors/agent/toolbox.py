"""The tools of one episode, run on the host: what is called here is what is recorded."""

import asyncio
import inspect
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from actors.agent.context_tool import ContextTool
from actors.agent.notepad import Notepad
from actors.agent.tool_clock import ToolClock
from actors.kernels.tool_specs import ToolError, ToolSpec, called_alone
from actors.tools.names import EPISODE_TOOLS
from actors.tools.tool import Tool, ToolCall, describe
from common.config import Agent
from common.errors import ConfigError, LZeroError
from common.wire.records import Task

MAX_ANSWER_BYTES = 64 << 10
"""Longer answers are cut; nobody reads them, and they travel and are stored with the episode."""
_LONGEST_ARGUMENTS = 10_000
"""Characters of text in all arguments of a call, whatever they are nested in; every other value
counts as one. Text is what tools normalise, split and search, in more time than its length."""


class ToolSet:
    """All tools that ``agent.tools`` names: the functions of every notebook, and who answers."""

    def __init__(self, agent: Agent, shared: Mapping[str, Tool]) -> None:
        """Put the episode's own tools and the ``shared`` ones, started, side by side.

        Raises:
            ConfigError: a name is unknown, or two tools offer the same function.
        """
        specs: list[ToolSpec] = []
        self.owners: dict[str, Tool] = {}
        for name in agent.tools:
            if name in EPISODE_TOOLS:
                specs += _episode_specs(name)
            elif name in shared:
                specs += shared[name].specs
                self.owners |= dict.fromkeys((s.name for s in shared[name].specs), shared[name])
            else:
                raise ConfigError(f"agent.tools: there is no tool {name!r}")
        self.specs = tuple(specs)
        names = [spec.name for spec in specs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"agent.tools: two tools offer a function {twice!r}")


class Toolbox:
    """The tools of one episode with their budget; the first submitted answer counts."""

    def __init__(
        self, task: Task, agent: Agent, *, tools: ToolSet, notepad: Notepad, context: ContextTool
    ) -> None:
        """Answer the calls of the cells that work on ``task``.

        Args:
            task: of this episode.
            agent: budgets.
            tools: what can be called.
            notepad: written by ``notepad`` and ``planning``.
            context: read and changed by ``context``.
        """
        self._task, self._agent, self._tools = task, agent, tools
        self._notepad, self._context = notepad, context
        self.answer: str | None = None
        self._calls: list[str] = []
        self._taken = 0
        self._closed = False
        self.clock = ToolClock()

    async def handle(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call from the sandbox; what it raises is raised in the cell."""
        if self._closed:
            raise PermissionError("the episode is over")
        if self.answer is not None:
            raise PermissionError("an answer was already submitted; only the first one counts")
        if len(self._calls) >= self._agent.max_tool_calls:
            raise PermissionError(
                f"no more than {self._agent.max_tool_calls} tool calls per episode"
            )
        self._calls.append(name)
        if name != "submit_final_answer":
            _check_size(name, args, kwargs, max(_LONGEST_ARGUMENTS, self._agent.notepad_characters))
        owner = self._tools.owners.get(name)
        if owner is None:
            return self._own(name)(*args, **kwargs)
        call = ToolCall(name=name, arguments=args, keywords=kwargs, task=self._task)
        number = self.clock.begin_call(time.monotonic(), alone=called_alone.get())
        try:
            async with asyncio.timeout(self._agent.tool_timeout_s):
                return await owner.call(call)
        except TimeoutError as error:
            limit_s = self._agent.tool_timeout_s
            raise TimeoutError(str(error) or f"{name} took longer than {limit_s:g} s") from None
        except asyncio.CancelledError:
            if (running := asyncio.current_task()) is None or running.cancelling():
                raise
            raise ToolError(f"{name} was given up on the host") from None
        except LZeroError as error:
            raise ValueError(str(error)) from error
        finally:
            self.clock.end_call(number, time.monotonic())

    def take_calls(self) -> tuple[str, ...]:
        """The names of the calls since the last time this was asked."""
        taken = tuple(self._calls[self._taken :])
        self._taken = len(self._calls)
        return taken

    def close(self) -> None:
        """Refuse further calls: the episode is over, whatever its cells left running."""
        self._closed = True

    def _own(self, name: str) -> Any:
        if name == "submit_final_answer":
            return self._submit
        if name == "planning":
            return self._notepad.plan
        owner: Any = {"notepad": self._notepad, "context": self._context}[name.partition(".")[0]]
        return getattr(owner, name.partition(".")[2])

    def _submit(self, answer: Any) -> None:
        """Submit the answer to the task and end; only the first submission counts."""
        if answer is None:
            raise ValueError("the answer is None; submit what was found, as text")
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
        self.answer = cut_answer(text)


def cut_answer(text: str) -> str:
    """``text`` as UTF-8 can carry it, at most ``MAX_ANSWER_BYTES`` of it."""
    data = text[:MAX_ANSWER_BYTES].encode("utf-8", "replace")
    return data[:MAX_ANSWER_BYTES].decode("utf-8", "ignore")


def _check_size(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> None:
    """Refuse what would take long to look at, before anybody looks at it."""
    size, left = 0, list[Any]([*args, *kwargs, *kwargs.values()])
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            left += value
        size += 1
        if size > limit + len(args) + len(kwargs) * 2:
            raise ValueError(
                f"{name}() takes at most {limit:,} characters of text in all; "
                "shorten it, or split the work into several calls"
            )


@cache
def _episode_specs(name: str) -> tuple[ToolSpec, ...]:
    if name == "submit_final_answer":
        return (_spec(Toolbox._submit, name),)
    if name == "planning":
        return (_spec(Notepad.plan, name),)
    owner: Any = {"notepad": Notepad, "context": ContextTool}[name]
    properties: tuple[str, ...] = getattr(owner, "properties", ())
    return tuple(
        _spec(getattr(owner, method), f"{name}.{method}", is_property=method in properties)
        for method in (*properties, *owner.methods)
    )


def _spec(method: Any, name: str, *, is_property: bool = False) -> ToolSpec:
    signature = inspect.signature(method, eval_str=True)
    without_self = list(signature.parameters.values())[1:]
    shown = signature.replace(parameters=without_self)
    return describe(method, shown, name=name, is_property=is_property)
