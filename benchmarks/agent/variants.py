"""What is compared: a system prompt with its tools, or one answer without a notebook. Pure."""

from dataclasses import dataclass, replace
from pathlib import Path

from actors.agent.prompt import SHIPPED
from actors.agent.stand_alone import stand_alone_config, with_options
from common.config import Config
from common.errors import ConfigError

DIRECT = "direct"
PROMPTS = Path(__file__).parent / "prompts"
_ENDING = ".md.j2"
_ANSWER = "submit_final_answer"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What every variant has alike.

    Attributes:
        max_steps, max_action_tokens, temperature: of the agent.
        max_context: tokens.
    """

    max_steps: int = 4
    max_action_tokens: int = 512
    temperature: float = 0.2
    max_context: int = 6144


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to have the tasks done; its name is how the command line calls it."""

    name: str
    prompt: str
    tools: tuple[str, ...] | None

    @property
    def is_direct(self) -> bool:
        """Whether the model answers at once, without a notebook."""
        return self.prompt == DIRECT

    def config(self, limits: Limits, *, corpus: str = "") -> Config:
        """The agent's settings; ``corpus`` is an index that it may search."""
        config = stand_alone_config()
        tools = config.agent.tools if self.tools is None else (*self.tools, _ANSWER)
        searching = ("search",) if corpus and "search" not in tools else ()
        mode = "direct" if self.is_direct else "agent"
        config = with_options(
            config,
            mode=mode,
            tools=tuple(dict.fromkeys((*searching, *tools))),
            system_prompt="" if self.is_direct else self.prompt,
            max_steps=limits.max_steps,
            max_action_tokens=limits.max_action_tokens,
            temperature=limits.temperature,
        )
        model = replace(config.model, max_context=limits.max_context)
        return replace(config, model=model, tasks=replace(config.tasks, train_corpus=corpus))


def read_variant(text: str) -> Variant:
    """``NAME`` with the default tools, or ``NAME+TOOL+TOOL``; ``NAME+`` has the answer alone.

    NAME is ``direct``, ``shipped``, a template of ``benchmarks/agent/prompts``, or a path.

    Raises:
        ConfigError: there is no such template.
    """
    name, plus, rest = text.partition("+")
    tools = tuple(tool for tool in rest.split("+") if tool) if plus else None
    return Variant(name=text, prompt=_template(name), tools=tools)


def _template(name: str) -> str:
    own = PROMPTS / f"{name}{_ENDING}"
    if name == DIRECT:
        return DIRECT
    if name == "shipped":
        return SHIPPED
    if own.is_file() or Path(name).is_file():
        return str(own if own.is_file() else Path(name))
    known = sorted(path.name.removesuffix(_ENDING) for path in PROMPTS.glob(f"*{_ENDING}"))
    raise ConfigError(
        f"--prompt {name}: there is no such prompt; expected {DIRECT}, shipped, the path of a "
        f"template, or one of {', '.join(known)}"
    )
