"""TRL's GRPO trainer and ours in direct mode on the same model, questions, reward and batch.

    python -m benchmarks.bench_trl [--model FOLDER] [--steps N] [--quick] [--json PATH]
        [--rounds N] [--groups N] [--group-size N] [--tokens N] [--learning-rate X] [--staleness N]

One side at a time, each in processes of its own on two cores, in turns; medians over the rounds.
Both compute in float32. Prompts whose token ids differ are refused.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report, arguments, make_report
from benchmarks.trl.comparison import OURS, TRL, compare
from benchmarks.trl.curve import SideRun
from benchmarks.trl.ours import run_ours
from benchmarks.trl.processes import stay_on
from benchmarks.trl.questions import addition_tasks, digit_tasks
from benchmarks.trl.random_model import write_random_model
from benchmarks.trl.theirs import run_trl
from benchmarks.trl.work import Work
from common.errors import LZeroError
from common.tasks import write_tasks
from launch.models.model_checks import check_model

_QUESTIONS = 400
_WINDOW = 5
CORES = 2
_SIDES: dict[str, Callable[[Work, Path], SideRun]] = {TRL: run_trl, OURS: run_ours}


def measure(work: Work, *, rounds: int, folder: Path, say: Callable[[str], None]) -> Report:
    """Train both sides ``rounds`` times, in turns; who goes first changes.

    Raises:
        LZeroError: a side cannot train.
    """
    runs: dict[str, list[SideRun]] = {TRL: [], OURS: []}
    for number in range(rounds):
        order = list(_SIDES) if number % 2 == 0 else list(reversed(_SIDES))
        for side in order:
            say(f"round {number + 1} of {rounds}: {side}")
            place = folder / f"{side}-{number}"
            place.mkdir()
            runs[side].append(_SIDES[side](work, place))
    window = min(_WINDOW, work.steps)
    figures, ratios = compare(runs, batch=work.batch, window=window)
    return make_report("trl", settings=_told(work, rounds), figures=figures, ratios=ratios)


def _told(work: Work, rounds: int) -> dict[str, object]:
    names = ("steps", "groups", "group_size", "action_tokens", "learning_rate", "cores")
    told = {name: getattr(work, name) for name in names}
    return {"model": Path(work.model).name, "rounds": rounds, **told, "dtype": "float32"}


def make_work(options: argparse.Namespace, folder: Path) -> Work:
    """What the options describe, with its questions written into ``folder``."""
    tasks = folder / "tasks.jsonl"
    model = options.model or write_random_model(folder / "model")
    write_tasks((addition_tasks if options.model else digit_tasks)(_QUESTIONS), tasks)
    return Work(
        model=str(model.resolve()),
        tasks=str(tasks),
        steps=options.steps,
        groups=options.groups,
        group_size=options.group_size,
        action_tokens=options.tokens,
        learning_rate=options.learning_rate,
        max_staleness=options.staleness,
        cores=CORES,
    )


def parse() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a random one if --quick")
    parser.add_argument("--steps", type=int, help="optimizer steps; 30, or 3 if --quick")
    parser.add_argument("--rounds", type=int, help="trainings of each side; 3, or 1 if --quick")
    parser.add_argument("--groups", type=int, default=8, help="questions of a batch")
    parser.add_argument("--group-size", type=int, default=8, help="answers to each")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, at most")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--staleness", type=int, default=2, help="ours, at most; 0: synchronous")
    options = parser.parse_args()
    if not (options.model or options.quick):
        parser.error("--model FOLDER is needed where there is no --quick")
    options.steps = options.steps or (3 if options.quick else 30)
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def run(options: argparse.Namespace, console: Console) -> Report:
    """Measure what the options describe, in a folder that is removed.

    Raises:
        LZeroError: the model cannot be used, or a side cannot train.
    """
    if options.model:
        check_model(options.model)
    with tempfile.TemporaryDirectory() as name, console.status("") as status:
        work = make_work(options, Path(name))
        return measure(work, rounds=options.rounds, folder=Path(name), say=status.update)


def main() -> None:
    options = parse()
    stay_on(CORES)
    console = Console(highlight=False)
    try:
        report = run(options, console)
    except LZeroError as error:
        sys.exit(f"error: {error}")
    report.give(console, options.json)


if __name__ == "__main__":
    main()
