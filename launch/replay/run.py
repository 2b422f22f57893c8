"""``lzero replay``: starts the ranks, and compares what they leave with what the run recorded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from common.errors import InputError, RunError
from launch.journal.place import find_journal
from launch.journal.starts import DamagedJournalError
from launch.outputs import written
from launch.replay.comparison import Recorded, differences, read_recorded
from launch.replay.outcome import Compared, ReplayOutcome, VariantOutcome
from launch.replay.planning import (
    ReplayPlan,
    ReplayRequest,
    check_comparable,
    plan_replay,
    task_of,
)
from launch.replay.variants import OWN
from launch.run.fine_tune import LogFollower
from launch.run.folder import read_only
from launch.screen import say
from launch.starters import specs
from launch.starters.local import Supervisor, interruptible
from launch.starters.private import fresh_folder
from learner.journal.survey import survey
from learner.replay.task import ReplayResult, load_result, save

REPLAY = "replay"


def replay_run(request: ReplayRequest, console: Console) -> ReplayOutcome:
    """Train again, and compare; progress goes to ``console``.

    Raises:
        LZeroError: it cannot be done, or a rank failed.
        Interrupted: somebody ended it.
    """
    place = find_journal(request.run)
    if request.out is not None and request.out.exists():
        raise InputError(f"--out {request.out} exists; name a new folder")
    with read_only(place.run):
        found = survey(place.folder)
        try:
            plan = plan_replay(request, place, found)
        except DamagedJournalError as damage:
            return ReplayOutcome(run=place.run.path, damage=str(damage))
        recorded = read_recorded(place.run.metrics, place.run.batches)
        check_comparable(plan, recorded)
        for note in plan.notes:
            say(console, note)
        beside = f", {len(plan.variants)} settings side by side" if plan.variants[1:] else ""
        say(console, f"steps {plan.steps}, from {plan.start}{beside}")
        result = _play(plan, request, partial(say, console))
        return outcome_of(plan, recorded, result)


def _play(plan: ReplayPlan, request: ReplayRequest, show: Callable[[str], None]) -> ReplayResult:
    """Start the ranks, and wait for them."""
    with interruptible(), fresh_folder() as private:
        task = task_of(plan, request.out, private)
        save(task, private / "task.json")
        if request.out is not None:
            with written(request.out):
                request.out.mkdir(mode=0o700, parents=True)
        log = (request.out or private) / "replay.log"
        log.touch()
        follower = LogFollower(log, show, name=REPLAY)
        learner = plan.variants[0].config.learner
        process = specs.fine_tuning(
            REPLAY,
            ("learner.replay.main", "--task", str(private / "task.json")),
            ranks=learner.ranks,
            threads=learner.threads,
            private=private,
            log=log,
            hint=lambda: "",
        )
        with Supervisor(tick=follower.tick) as supervisor:
            supervisor.spawn(process)
            try:
                supervisor.finish(REPLAY)
            except RunError as error:
                refusal = Path(task.refusal)
                if refusal.is_file():
                    raise InputError(refusal.read_text(encoding="utf-8")) from error
                raise
        follower.tick()
        return load_result(Path(task.result))


def outcome_of(plan: ReplayPlan, recorded: Recorded, result: ReplayResult) -> ReplayOutcome:
    """Compare what the ranks left with what the run recorded."""
    same_ranks = plan.same_ranks
    steps = plan.steps
    return ReplayOutcome(
        run=plan.place.run.path,
        start=str(plan.start),
        steps=steps,
        ranks=result.ranks,
        ranks_of_run=plan.own.learner.ranks,
        compared=Compared(
            metrics=sum(step in steps for step in recorded.metrics),
            batches=sum(step in steps for step in recorded.batches),
            weights=tuple((kept.step, kept.tensors) for kept in result.kept),
        ),
        differences=tuple(differences(recorded, result, same_ranks=same_ranks)),
        variants=tuple(
            VariantOutcome(f"variant {number}" if number else OWN, variant.name, trial)
            for number, (variant, trial) in enumerate(
                zip(plan.variants, result.trials, strict=True)
            )
        ),
    )
