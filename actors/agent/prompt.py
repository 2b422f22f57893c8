"""The system prompt as a Jinja template that users can replace."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import jinja2.sandbox

from actors.kernels.tool_specs import ToolSpec
from common.chat import escape_tags
from common.config import Agent
from common.errors import ConfigError

SHIPPED = "notebook"
"""``agent.system_prompt`` of the template that comes with the package."""
WORKSPACE = "/workspace"
_BEFORE_TURN_END = re.compile(r"\s+(?=<\|im_end\|>)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTool:
    """A tool as a template sees it; nothing in its texts is a tag."""

    name: str
    signature: str
    doc: str


class PromptTemplate:
    """A template of the system prompt. Only its own text may hold tags.

    It may use ``tools`` (each with ``name``, ``signature``, ``doc``), ``max_steps``,
    ``max_action_tokens``, ``max_observation_characters``, ``workspace``, ``files`` (names),
    ``has_notepad``, ``has_context`` and the filter ``first_line``. Unknown names are errors.
    It may go on with turns of a worked example, with their tags written out.
    """

    def __init__(self, source: str, *, name: str = "system prompt") -> None:
        """Compile ``source``; an empty one renders to nothing.

        Raises:
            ConfigError: it is not a template; names the line.
        """
        self._name = name
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=False
        )
        environment.filters["first_line"] = _first_line
        try:
            self._template = environment.from_string(source) if source.strip() else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{name}, line {error.lineno}: {error.message}") from error

    def render(
        self,
        agent: Agent,
        tools: Sequence[ToolSpec],
        files: Sequence[str] = (),
        *,
        escape: Callable[[str], str] = escape_tags,
    ) -> str:
        """The system prompt of a task with these attached ``files``.

        Args:
            agent: mode and budgets.
            tools: functions of the notebook; their texts may come from a server.
            files: names of files, which may come from a task file.
            escape: breaks the tags in what comes from outside.

        Raises:
            ConfigError: the template uses something that is not there.
        """
        if self._template is None:
            return ""
        try:
            written = self._template.render(
                tools=[_shown(tool, escape) for tool in tools],
                max_steps=agent.max_steps,
                max_action_tokens=agent.max_action_tokens,
                max_observation_characters=agent.max_observation_characters,
                workspace=WORKSPACE,
                files=[escape(file) for file in files],
                has_notepad="notepad" in agent.tools,
                has_context="context" in agent.tools,
            )
        except Exception as error:  # a template may do anything, such as divide by zero
            raise ConfigError(f"{self._name}: {type(error).__name__}: {error}") from error
        return _BEFORE_TURN_END.sub("", written.strip())


def load_template(name: str) -> PromptTemplate:
    """The template that ``agent.system_prompt`` names: none, the shipped one, or a file.

    Raises:
        ConfigError: there is no such file, or it is not a template.
    """
    if not name:
        return PromptTemplate("")
    if name == SHIPPED:
        source = resources.files("actors.agent").joinpath("notebook.md.j2").read_text()
        return PromptTemplate(source, name=SHIPPED)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"agent.system_prompt: there is no template {name!r}; expected '' for none, "
            f"{SHIPPED!r} for the shipped one, or the path of a Jinja template"
        )
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"agent.system_prompt: {path} cannot be read: {error}") from error
    return PromptTemplate(source, name=str(path))


def _shown(tool: ToolSpec, escape: Callable[[str], str]) -> ShownTool:
    return ShownTool(name=escape(tool.name), signature=escape(tool.signature), doc=escape(tool.doc))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
