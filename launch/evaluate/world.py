"""``lzero eval --world-seed``: scores any checkpoint on a fresh held-out world."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.child_process import SOURCE_ROOT
from common.config import Config, Evaluation, EvaluationSuite, World
from common.config_file import load_config, save_config
from common.errors import ConfigError, InputError
from common.evaluation import SuiteScore, write_suites
from launch.evaluate.checkpoint import locate_checkpoint
from launch.models.model_checks import check_model
from launch.plan.evaluation import GREEDY, extra_suites, heldout_suite, suites_of
from launch.plan.topology import RunFiles, evaluation
from launch.report.progress import ProgressPanel
from launch.report.summary import read_scores
from launch.run.choices import choose
from launch.run.folder import RunFolder
from launch.run.preflight import check_sandbox_present
from launch.run.scores import check_scores
from launch.run.world import make_world, use_world
from launch.screen import cell
from launch.starters import specs
from launch.starters.local import Supervisor, interruptible
from launch.starters.private import make_plan, private_folder

PRESET = SOURCE_ROOT / "launch" / "presets" / "quickstart.toml"
"""Agent and search settings for a checkpoint that carries no configuration."""
TRAIN_TASKS = 1
"""A world needs training tasks; nobody asks them here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateRequest:
    """The command line of ``lzero eval``."""

    checkpoint: Path
    world_seed: int
    search_disabled: bool = False
    per_family: int = 400
    greedy: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """Scores by suite of one model on one held-out world."""

    model: Path
    world_seed: int
    search_disabled: bool
    scores: dict[str, SuiteScore]


def evaluate(request: EvaluateRequest, console: Console) -> EvaluateResult:
    """Serve the checkpoint, generate the world, ask its questions.

    Raises:
        InputError: there is no usable model at that path, or a number is out of range.
        RunError: the policy server or the evaluation failed.
    """
    if request.per_family < 1:
        raise InputError(f"--per-family must be at least 1, got {request.per_family}")
    try:
        World(seed=request.world_seed)
    except ConfigError as error:
        raise InputError(str(error).replace("world.seed", "--world-seed")) from error
    model, own = locate_checkpoint(request.checkpoint)
    config = own or load_config(PRESET)
    check_model(model, max_context=config.model.max_context)
    check_sandbox_present()
    with (
        tempfile.TemporaryDirectory(prefix="lzero-eval-") as scratch,
        private_folder(Path(scratch)) as private,
    ):
        folder = RunFolder(Path(scratch))
        config, _ = choose(_evaluation_config(config, model, request, folder))
        save_config(config, folder.config)
        with interruptible(), ProgressPanel(console) as progress:
            progress.phase(f"generating held-out world {request.world_seed}")
            make_world(folder.tasks, config.world, heldout_seed=request.world_seed)
            files = RunFiles(config=folder.config, private=private)
            ask_suites(config, folder, files, progress)
        scores = read_scores(folder.evaluation)
    return EvaluateResult(
        model=model,
        world_seed=request.world_seed,
        search_disabled=request.search_disabled,
        scores=scores,
    )


def scores_as_json(result: EvaluateResult) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "model": str(result.model),
        "world_seed": result.world_seed,
        "search_disabled": result.search_disabled,
        "suites": {
            name: {
                family: dataclasses.asdict(family_score)
                for family, family_score in score.families.items()
            }
            for name, score in result.scores.items()
        },
    }


def print_scores(result: EvaluateResult, console: Console) -> None:
    """The same as a table."""
    title = cell(f"{result.model}, held-out world {result.world_seed}")
    table = Table(title=title, title_justify="left")
    for column in ("suite", "family", "n", "exact", "contains", "F1", "submitted", "steps"):
        table.add_column(column, justify="left" if column in ("suite", "family") else "right")
    for name, score in result.scores.items():
        for family, shares in score.families.items():
            table.add_row(
                cell(name),
                cell(family),
                str(shares.n),
                *(f"{s:.1%}" for s in (shares.exact_match, shares.contains, shares.f1)),
                f"{shares.submitted:.1%}",
                f"{shares.mean_steps:.1f}",
            )
    console.print(table)


def _evaluation_config(
    config: Config, model: Path, request: EvaluateRequest, folder: RunFolder
) -> Config:
    resolved = use_world(dataclasses.replace(config, evaluation=Evaluation()), folder.tasks)
    return dataclasses.replace(
        resolved,
        world=dataclasses.replace(config.world, enabled=True, train_tasks=TRAIN_TASKS),
        evaluation=dataclasses.replace(resolved.evaluation, suites=_suites(request, folder.tasks)),
        model=dataclasses.replace(config.model, path=str(model)),
    )


def _suites(request: EvaluateRequest, world: Path) -> tuple[EvaluationSuite, ...]:
    heldout = heldout_suite(world)
    suites: tuple[EvaluationSuite, ...] = (heldout, *extra_suites(world))
    if request.greedy:
        suites += (dataclasses.replace(heldout, name=GREEDY, temperature=0.0),)
    return tuple(
        dataclasses.replace(
            suite, per_family=request.per_family, search_disabled=request.search_disabled
        )
        for suite in suites
    )


def ask_suites(config: Config, folder: RunFolder, files: RunFiles, progress: ProgressPanel) -> None:
    """Serve the model, ask the suites of ``after``, and leave their scores in the folder.

    Raises:
        RunError: the policy server or the evaluation failed.
    """
    plan, asked = make_plan(config, files), folder.path / "suites.json"
    write_suites(suites_of(config, "after"), asked)
    folder.evaluation.mkdir()
    with Supervisor(tick=progress.tick) as supervisor:
        progress.phase("starting the policy servers")
        supervisor.start(*specs.policy_servers(plan, config, folder.logs))
        progress.phase("asking the held-out questions")
        progress.watch_scores("", folder.evaluation)
        process = evaluation("evaluate", files, suites=asked, version=0, out=folder.evaluation)
        supervisor.spawn(specs.evaluation(process, folder.logs))
        supervisor.finish("evaluate")
        progress.tick()
    check_scores(read_scores(folder.evaluation), folder.evaluation)
