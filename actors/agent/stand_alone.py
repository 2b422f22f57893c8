"""The settings of an agent that works for a person, not for training."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.agent.chat.models import ServedModel
from actors.agent.direct.reading import NOT_SCORED
from actors.tools.arguments import valid_text
from actors.tools.tool import FunctionTool, Tool, UserTool
from common.config import Agent, Config, Kernel, Learner, Model
from common.config_file import with_keys
from common.errors import ConfigError, InputError
from common.wire.records import Task

TOOLS = ("submit_final_answer", "notepad", "planning", "context")
"""Tools that need nothing from outside."""

GivenTool = str | Callable[..., Any] | Tool
"""A tool by its name in the configuration, a plain function, or an object of one's own."""

_ANSWER, _SEARCH = "submit_final_answer", "search"
_MAX_CONTEXT = 32768


def stand_alone_config() -> Config:
    """Defaults for a capable model: long actions and outputs, much patience, a trimmed context."""
    return Config(
        model=Model(max_context=_MAX_CONTEXT),
        learner=Learner(pack_tokens=1 << 30),  # nothing is trained: any context will do
        kernel=Kernel(idle=1, cell_timeout_s=60.0, cpu_s=600.0),
        agent=Agent(
            tools=TOOLS,
            system_prompt="notebook",
            max_steps=20,
            max_action_tokens=2000,
            max_observation_characters=8000,
            max_tool_calls=256,
            tool_timeout_s=60.0,
            temperature=0.6,
            episode_timeout_s=1800.0,
            trim="soft",
            max_segments=64,
            accepted_actions="any",
            format_reminders=3,
        ),
    )


def with_options(config: Config, **options: Any) -> Config:
    """``config`` with keys of its section ``agent`` replaced; None leaves a key as it is.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return with_keys(config, "agent", given, where="NotebookAgent")


def with_corpus(config: Config, corpus: str | Path) -> Config:
    """``config`` with ``search`` over the index ``corpus``; empty leaves it as it is."""
    if not corpus:
        return config
    return replace(config, tasks=replace(config.tasks, train_corpus=str(corpus)))


def with_limits_of(config: Config, served: ServedModel) -> Config:
    """``config`` with a context, and actions, no longer than the server's model takes."""
    room = config.model.max_context
    if served.max_context is not None:
        room = min(room, served.max_context)
    longest = min(config.agent.max_action_tokens, max(1, room // 2))
    return replace(
        config,
        model=replace(config.model, max_context=room),
        agent=replace(config.agent, max_action_tokens=longest),
    )


def make_task(question: str, files: Sequence[str | Path] = ()) -> Task:
    """A task that nobody scores.

    Raises:
        InputError: the question is empty, a file is missing or has the name of another, or a name
            is no text.
    """
    paths = [Path(file).expanduser().resolve() for file in files]
    for number, path in enumerate(paths):
        if not path.is_file():
            raise InputError(f"file {path} does not exist; it was to be attached to the task")
        if path.name in (earlier.name for earlier in paths[:number]):
            raise InputError(f"two attached files are called {path.name!r}; rename one")
    if not question.strip():
        raise InputError("the task is empty; say what the agent should do")
    try:
        return Task(
            task_id=f"stand-alone-{uuid.uuid4().hex[:12]}",
            question=valid_text(question),
            kind=NOT_SCORED,
            files=tuple(map(str, paths)),
        )
    except ValueError as error:
        raise InputError(f"the task cannot be used: {error}") from error


def sort_tools(
    given: Sequence[GivenTool] | None, default: Sequence[str], *, corpus: bool
) -> tuple[tuple[str, ...], dict[str, Tool]]:
    """All names for ``agent.tools``, and the tools among them that only this agent knows.

    Args:
        given: tools as the user names them; None for the default.
        default: names.
        corpus: whether there is one to search.

    Raises:
        ConfigError: a function cannot be a tool.
    """
    names: list[str] = []
    own: dict[str, Tool] = {}
    for tool in default if given is None else given:
        if isinstance(tool, str):
            names.append(tool)
            continue
        made = _as_tool(tool)
        name = made.specs[0].name if made.specs else type(tool).__name__
        names.append(f"{name} ({len(names) + 1})" if name in names else name)
        own[names[-1]] = made
    names += [_SEARCH] if corpus else []
    return tuple(dict.fromkeys([*names, _ANSWER])), own


def _as_tool(given: Callable[..., Any] | Tool) -> Tool:
    if isinstance(given, Tool):
        return UserTool(given, type(given).__name__)
    try:
        return FunctionTool(given)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"{given!r} cannot be a tool: {error}") from error
