"""Does a run learn as well while its processes are killed?

    python -m benchmarks.chaos [--seeds 1,2,3] [--every SECONDS] [--json PATH]

Trains the quickstart twice for each seed: once left alone, once with a SIGKILL every so many
seconds to an actor, the kernels' template process, the policy server or its vLLM, the learner, or
the command itself (which is then begun again with ``--resume``): whichever chance picks among those
that do not still recover from the last one, which the run's own records tell. Prints every kill and
how long it took until the role worked again, and compares the held-out success of both. Ends with
status 1 if a run failed or the disturbed ones learned less by more than ``--points``.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from rich.console import Console

from benchmarks.chaos.records import heldout_success, restarts_of
from benchmarks.chaos.run import ChaosRun
from benchmarks.chaos.turns import Recovery
from benchmarks.report import REPOSITORY, arguments, make_report

STEPS, EVERY_S, POINTS = 40, 30.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both runs of a seed: held-out success in percent, seconds, and what was done to the second.

    ``kills`` counts those of all roles, ``restarts`` what the run started again by itself.
    """

    seed: int
    undisturbed: float
    disturbed: float
    seconds: tuple[float, float]
    kills: int
    restarts: int
    recoveries: tuple[Recovery, ...]


class RunFailedError(Exception):
    """A run did not come to its end."""


def play(
    seed: int, folder: Path, *, steps: int, every_s: float, settings: Sequence[str],
    console: Console,
) -> Pair:  # fmt: skip
    """Both runs of a seed.

    Raises:
        RunFailedError: one of them failed; names its log.
    """
    given = (f"run.seed={seed}", f"world.seed={100 + 10 * seed}", *settings)
    runs = [
        ChaosRun(folder / name, steps=steps, settings=given, log=folder / f"{name}.log")
        for name in (f"chaos-{seed}-undisturbed", f"chaos-{seed}")
    ]
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"seed {seed}: undisturbed")
    plain = runs[0].undisturbed()
    _check(plain.status, runs[0], folder)
    console.print(f"seed {seed}: somebody is killed every {every_s:g} s")
    outcome, turns = runs[1].disturbed(seed=seed, every_s=every_s, tell=console.print)
    _check(outcome.status, runs[1], folder)
    if turns.recovering:
        raise RunFailedError(f"{sorted(turns.recovering)} never worked again")
    return Pair(
        seed=seed,
        undisturbed=100 * heldout_success(runs[0].folder),
        disturbed=100 * heldout_success(runs[1].folder),
        seconds=(plain.seconds, outcome.seconds),
        kills=len(turns.kills),
        restarts=restarts_of(runs[1].folder),
        recoveries=tuple(turns.recoveries),
    )


def _check(status: int, run: ChaosRun, folder: Path) -> None:
    if status:
        log = folder / f"{run.folder.name}.log"
        raise RunFailedError(f"'{run.folder.name}' ended with status {status}; see {log}")


def figures_of(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Means over seeds, and seconds to recover by role."""
    figures: dict[str, float | None] = {
        "heldout_undisturbed_percent": fmean(pair.undisturbed for pair in pairs),
        "heldout_disturbed_percent": fmean(pair.disturbed for pair in pairs),
        "lost_points": lost_points(pairs),
        "undisturbed_s": fmean(pair.seconds[0] for pair in pairs),
        "disturbed_s": fmean(pair.seconds[1] for pair in pairs),
        "kills": sum(pair.kills for pair in pairs),
        "recoveries": sum(len(pair.recoveries) for pair in pairs),
        "restarts_by_itself": sum(pair.restarts for pair in pairs),
    }
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        for recovery in pair.recoveries:
            seconds[recovery.role].append(recovery.seconds)
    for role, some in sorted(seconds.items()):
        figures |= {f"{role}_s_p50": median(some), f"{role}_s_max": max(some)}
        figures[f"{role}_kills"] = len(some)
    return figures


def lost_points(pairs: Sequence[Pair]) -> float:
    """Held-out success that the kills cost, mean over seeds, percentage points."""
    return fmean(pair.undisturbed - pair.disturbed for pair in pairs)


def main() -> int:
    """Parse arguments, run, print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", default="1", help="of the runs, with commas between them")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between two kills")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--points", type=float, default=POINTS, help="that may be lost")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs", help="of the runs")
    parser.add_argument("--set", action="append", default=[], help="as for lzero train")
    given = parser.parse_args()
    console = Console()
    steps = given.steps // 2 if given.quick else given.steps
    try:
        pairs = [
            play(
                int(seed), given.folder.resolve(), steps=steps, every_s=given.every,
                settings=given.set, console=console,
            )
            for seed in given.seeds.split(",")
        ]  # fmt: skip
    except RunFailedError as error:
        console.print(f"chaos: {error}", markup=False)
        return 1
    settings = {"steps": steps, "every_s": given.every, "seeds": given.seeds}
    report = make_report("chaos", settings=settings, figures=figures_of(pairs), ratios={})
    report.give(console, given.json)
    lost = lost_points(pairs)
    if lost > given.points:
        console.print(f"{lost:.1f} points were lost, {given.points:g} may be")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
