"""The command line of ``lzero eval`` on question sets, and the configuration that it comes to."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.agent.prompt import SHIPPED
from actors.agent.stand_alone import stand_alone_config
from common.asking import AskMode
from common.config import Config
from common.config.overrides import apply_override
from common.config_file import config_from_tables, load_config, tables_of
from common.errors import ConfigError, InputError
from common.model_config import CONFIG, longest_context, read_model_config
from launch.evaluate.sets import ChosenSets

_ANSWER, _SEARCH = "submit_final_answer", "search"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Of a million tokens, in whatever currency; None where nobody said."""

    prompt: float | None = None
    generated: float | None = None

    def cost(self, prompt_tokens: float, generated: float) -> float | None:
        """Of so many tokens; None without any price."""
        if self.prompt is None and self.generated is None:
            return None
        return (prompt_tokens * (self.prompt or 0.0) + generated * (self.generated or 0.0)) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class AskRequest:
    """Whom to ask what, and how.

    Attributes:
        model: a run, a checkpoint or a model folder; None where ``url`` says who is asked.
        url: OpenAI-compatible server.
        served_name: of the model there; empty for the only one.
        key_variable: environment variable with its API key; empty for none.
        chosen: the question sets.
        mode: notebook agent, one answer, or one answer with pages.
        samples: episodes per task.
        limit: tasks per set, in file order; 0 for all.
        temperature: None for 0 with one sample, else for ``agent.temperature``.
        corpus: search index; empty for the run's own.
        pages: that are put into the prompt of mode ``rag``.
        parallel: episodes in flight; 0 for the default.
        config_file: settings over those of the run.
        overrides: ``section.key=value``, over both.
        out: folder of the result; None for one that its settings name.
        prices: of tokens.
        against: folder of another result.
    """

    model: Path | None = None
    url: str = ""
    served_name: str = ""
    key_variable: str = ""
    chosen: ChosenSets
    mode: AskMode = "agent"
    samples: int = 1
    limit: int = 0
    temperature: float | None = None
    corpus: str = ""
    pages: int = 3
    parallel: int = 0
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    prices: Prices = Prices()
    against: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: names the option, what it must be and what came.
        """
        if (self.model is None) == (not self.url):
            raise InputError("name either a model folder or a run, or --url of a server")
        limits = (("--samples", self.samples, 1), ("--limit", self.limit, 0))
        for option, value, least in (*limits, ("--pages", self.pages, 1)):
            if value < least:
                raise InputError(f"{option} must be at least {least}, got {value}")
        if self.samples > 1 and self.temperature == 0:
            raise InputError(
                f"--samples {self.samples} with --temperature 0 would ask for the same answer "
                "again and again; leave one of them out"
            )


def asked_config(request: AskRequest, config: Config) -> Config:
    """``config`` of a run or a stand-alone agent, with what the request says over it.

    Raises:
        ConfigError: a file or an override is wrong.
        InputError: mode ``rag`` has nothing to search.
    """
    if request.config_file is not None:
        config = load_config(request.config_file, defaults=config)
    tables = tables_of(config)
    for override in request.overrides:
        apply_override(Config, tables, override)
    config = config_from_tables(tables, where="--set")
    corpus = request.corpus or config.tasks.train_corpus
    return config_from_tables(_with_mode(tables_of(config), request, corpus), where="lzero eval")


def _with_mode(tables: dict[str, Any], request: AskRequest, corpus: str) -> dict[str, Any]:
    """The tables of a configuration under which nothing but answers is measured."""
    agent, search = tables["agent"], tables["tools"]["search"]
    tables["rewards"] |= {"preset": "none", "terms": {}}
    tables["evaluation"]["suites"] = []
    tables["world"]["enabled"] = False
    tables["tasks"] |= {"train": "", "train_corpus": corpus}
    if request.mode == "agent":
        agent["mode"] = "agent"
        if request.corpus:
            agent["tools"] = list(dict.fromkeys([*agent["tools"], _SEARCH]))
        return tables
    agent |= {"mode": "direct", "tools": [_ANSWER]}
    if agent["system_prompt"] == SHIPPED:  # it is about notebooks
        agent["system_prompt"] = ""
    if request.mode == "rag":
        search |= {"match": "any", "results": request.pages}
        if search["provider"] == "local" and not corpus:
            raise InputError("--mode rag needs pages: name an index with --corpus (lzero index)")
    return tables


def config_of_folder(model: Path) -> Config:
    """The settings of ``lzero agent``, with a context that the model takes."""
    config = stand_alone_config()
    longest = longest_context(read_model_config(model), model / CONFIG)
    room = min(config.model.max_context, longest or config.model.max_context)
    actions = min(config.agent.max_action_tokens, max(1, room // 2))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, path=str(model), max_context=room),
        agent=dataclasses.replace(config.agent, max_action_tokens=actions),
    )


def sampling_temperature(request: AskRequest, config: Config) -> float:
    """As asked for; else the likeliest answer where one is drawn, else the agent's own."""
    if request.temperature is not None:
        if not 0 <= request.temperature <= 100:
            raise ConfigError(f"--temperature must be 0 to 100, got {request.temperature:g}")
        return request.temperature
    return 0.0 if request.samples == 1 else config.agent.temperature
