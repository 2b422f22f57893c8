"""Our side: ``lzero train`` in direct mode, one action and no notebook, with a server by vLLM."""

from dataclasses import replace
from pathlib import Path

from benchmarks.trl.curve import Point, SideRun
from benchmarks.trl.processes import run_counted
from benchmarks.trl.prompts import our_prompts
from benchmarks.trl.work import Work
from common.config import (
    Actors,
    Agent,
    Config,
    Kernel,
    Learner,
    Model,
    PolicyServer,
    Rewards,
    Run,
    Tasks,
)
from common.config_file import save_config
from common.episode_record import read_records
from common.tasks import read_tasks
from common.telemetry.process_totals import read_learner_totals
from launch.report.metrics_tail import read_metrics
from launch.run.folder import RunFolder

_PACK_TOKENS = 2048


def run_ours(work: Work, folder: Path) -> SideRun:
    """Train in ``folder``, which is fresh.

    Raises:
        LZeroError: the run cannot be configured, or failed.
    """
    settings, run = folder / "settings.json", RunFolder(folder / "runs" / "ours")
    save_config(our_settings(work, runs=run.path.parent, prompt_tokens=_longest(work)), settings)
    ran = run_counted("launch.cli", "train", str(settings), folder=folder, cores=work.cores)
    records = read_metrics(run.metrics)
    ahead = _sampled_ahead_s(run, records[-1].seconds)
    points = tuple(
        Point(seconds=ahead + record.seconds, success=record.exact_match) for record in records
    )
    staleness = read_learner_totals(run.learner_totals).staleness
    return SideRun(
        points=points,
        start_s=ran.seconds - points[-1].seconds,
        cpu_s=ran.cpu_s,
        processes=ran.processes,
        staleness_mean=staleness.mean,
        staleness_max=staleness.max,
    )


def our_settings(work: Work, *, runs: Path, prompt_tokens: int) -> Config:
    """The configuration: direct mode, only the answer counts, nothing is evaluated beside it.

    Args:
        work: what is to be done.
        runs: folder of the run.
        prompt_tokens: of the longest prompt.
    """
    context = max(prompt_tokens + work.action_tokens, 16)
    return Config(
        run=Run(name="ours", folder=str(runs), steps=work.steps, seed=work.seed),
        model=Model(path=work.model, dtype="float32", max_context=context),
        tasks=Tasks(train=work.tasks),
        agent=Agent(
            mode="direct",
            tools=("submit_final_answer",),
            max_steps=1,
            max_action_tokens=work.action_tokens,
            max_observation_characters=1,
            temperature=work.temperature,
        ),
        rewards=Rewards(preset="none", terms={"exact_match": 1.0}),
        policy_server=PolicyServer(max_sequences=work.batch, threads=work.cores),
        actors=Actors(episodes=work.batch),
        kernel=Kernel(idle=0, preload_numpy=False),
        learner=_learner(work, context),
        evaluation=replace(Config().evaluation, during_every=0),
    )


def _learner(work: Work, context: int) -> Learner:
    """It and the policy server share the cores, each with as many threads as there are."""
    return Learner(
        threads=work.cores,
        groups=work.groups,
        group_size=work.group_size,
        max_staleness=work.max_staleness,
        pack_tokens=max(context, _PACK_TOKENS),
        learning_rate=work.learning_rate,
        warmup_steps=work.warmup_steps,
        checkpoint_every=work.steps,
        batch_timeout_s=1000.0,
    )


def _sampled_ahead_s(run: RunFolder, seconds: float) -> float:
    """Seconds for which episodes ran before the learner's clock began, at its first batch.

    Args:
        run: finished.
        seconds: of that clock, at the last line of the metrics.
    """
    began = run.metrics.stat().st_mtime - seconds
    parts = sorted((run.path / "trajectories").glob("*.jsonl"))
    first = min(record.started_at for part in parts for record in read_records(part))
    return max(0.0, began - first)


def _longest(work: Work) -> int:
    """Tokens of the longest prompt."""
    tasks = read_tasks(Path(work.tasks))
    return max(map(len, our_prompts(tasks, Path(work.model))))
