"""``lzero eval --tasks``: asks any model any questions and scores the answers.

consumes   a request; a model folder that it serves itself, or the address of a server
produces   the folder of a result, in which the same request goes on where it stopped
waits for  ``asking.py``
"""

import asyncio
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.agent.chat.client import ChatClient
from actors.agent.chat.models import ServedModel
from actors.agent.stand_alone import stand_alone_config, with_limits_of
from actors.tools.search.index import SearchIndex
from common.asking import AskJob
from common.config import Config
from common.config_file import load_config, tables_of
from common.episode_record import EvaluationRecord
from common.errors import ConfigError
from common.json_output import json_text
from launch.evaluate.asking import ask_rest, checked_questions
from launch.evaluate.checkpoint import locate_checkpoint
from launch.evaluate.comparison import Comparison, check_comparable, compare_results
from launch.evaluate.folder import AskedSet, EvalFolder, EvalSettings, opened
from launch.evaluate.request import (
    AskRequest,
    asked_config,
    config_of_folder,
    sampling_temperature,
)
from launch.evaluate.results import Results, score
from launch.models.model_checks import check_model
from launch.report.progress import ProgressPanel
from launch.run.choices import choose
from launch.run.inputs import digest_of_file, digest_of_model
from launch.run.preflight import check_sandbox_present

PARALLEL_REQUESTS = 16
"""Episodes in flight against a server that is not ours, unless ``--parallel`` says otherwise."""
_SECTIONS = ("agent", "tools", "services", "kernel")
"""Of the configuration, what answers depend on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """A finished evaluation: where it is, under which settings it was made, and what it says."""

    folder: EvalFolder
    settings: EvalSettings
    results: Results
    comparison: Comparison | None


def evaluate_sets(request: AskRequest, console: Console) -> EvalResult:
    """Ask what is left to ask, then score everything.

    Raises:
        InputError: a file, a folder or an option cannot be used.
        ConfigError: the configuration is wrong.
        PolicyServerError: the server cannot be reached, or does not have the model.
        RunError: the policy server or the process that asks failed.
    """
    request.check()
    config, served = _prepared(request)
    settings = _settings(request, config, served)
    folder = EvalFolder((request.out or _default_folder(settings)).expanduser().absolute())
    job = _job(request, config, settings)
    questions = checked_questions(config, job)
    against = _episodes_of(request.against) if request.against else None
    if against is not None:
        asked = (question.task for question in questions)
        check_comparable(asked, against, str(request.against))
    with opened(folder, settings):
        with ProgressPanel(console) as progress:
            ask_rest(config, job, questions, folder, progress)
        records = folder.read_episodes()
    results = score(settings, records, request.prices, request.chosen.missing)
    comparison = None
    if against is not None:
        comparison = compare_results(records, against, str(request.against), settings.names)
    return EvalResult(folder=folder, settings=settings, results=results, comparison=comparison)


def _episodes_of(path: Path) -> list[EvaluationRecord]:
    other = EvalFolder(path.expanduser())
    other.read_settings()
    return other.read_episodes()


def _prepared(request: AskRequest) -> tuple[Config, ServedModel | None]:
    """The configuration that is asked under, checked; and the model of a server of others."""
    served = None
    if request.model is None:
        served = asyncio.run(_described(request))
        config = with_limits_of(asked_config(request, stand_alone_config()), served)
    else:
        model, own = locate_checkpoint(request.model)
        config = asked_config(request, own or _of_folder(request, model))
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, path=str(model))
        )
        check_model(model, max_context=config.model.max_context)
        config, _ = choose(config)
    if config.agent.mode == "agent" and config.kernel.minimum_level != "unsafe":
        check_sandbox_present()
    if corpus := config.tasks.train_corpus:
        SearchIndex(Path(corpus)).close()
    return config, served


def _of_folder(request: AskRequest, model: Path) -> Config:
    """A model folder has no configuration: that of the file, else the settings of an agent."""
    if request.config_file is not None:
        return load_config(request.config_file)
    return config_of_folder(model)


async def _described(request: AskRequest) -> ServedModel:
    if request.key_variable and request.key_variable not in os.environ:
        raise ConfigError(f"--key-env: the environment has no variable {request.key_variable}")
    client = ChatClient(
        request.url,
        model=request.served_name,
        api_key=os.environ.get(request.key_variable, ""),
        attempts=2,
    )
    try:
        return await client.describe()
    finally:
        await client.close()


def _settings(request: AskRequest, config: Config, served: ServedModel | None) -> EvalSettings:
    corpus = config.tasks.train_corpus
    return EvalSettings(
        model=served.name if served else config.model.path,
        model_digest="" if served else digest_of_model(Path(config.model.path))[:16],
        url=request.url,
        sets=tuple(
            AskedSet(name=one.name, tasks=one.tasks, digest=_digest(Path(one.tasks)))
            for one in request.chosen.sets
        ),
        mode=request.mode,
        samples=request.samples,
        limit=request.limit,
        temperature=sampling_temperature(request, config),
        corpus=str(Path(corpus).absolute()) if corpus else "",
        corpus_digest=_digest(Path(corpus)) if corpus else "",
        config=_tables(config),
    )


def _digest(file: Path) -> str:
    """Of what a file holds; nothing for one that is not there, which its reader will tell."""
    return digest_of_file(file)[:16] if file.is_file() else ""


def _tables(config: Config) -> Mapping[str, Any]:
    tables = tables_of(config)
    kept = {name: tables[name] for name in _SECTIONS}
    kept["kernel"].pop("idle")
    return kept | {
        "kinds": tables["tasks"]["kinds"],
        "judge": config.rewards.judge,
        "max_context": config.model.max_context,
    }


def _default_folder(settings: EvalSettings) -> Path:
    """One for each model and settings, so that the same command finds it again."""
    text = json_text(dataclasses.asdict(settings))
    name = Path(settings.model).name
    if name == "hf":  # of a checkpoint, of a run
        name = "-".join(Path(settings.model).parts[-4:-1:2])
    plain = re.sub(r"[^\w.-]+", "-", name)
    return Path("runs") / f"eval-{plain}-{settings.mode}-{_short(text)}"


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _job(request: AskRequest, config: Config, settings: EvalSettings) -> AskJob:
    default = PARALLEL_REQUESTS if request.model is None else config.actors.episodes
    return AskJob(
        sets=request.chosen.sets,
        mode=request.mode,
        samples=request.samples,
        limit=request.limit,
        temperature=settings.temperature,
        corpus=settings.corpus,
        parallel=request.parallel or default,
        url=request.url,
        model=settings.model if request.url else "",
        key_variable=request.key_variable,
    )
