"""The quickstart, with a real vLLM and real kernels: synchronous and as it is by default, in turns.

Both train on the same number of trajectories, the seeds of a round are the same for both.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.report import REPOSITORY
from benchmarks.trl.processes import run_counted
from launch.run.folder import RunFolder

_PRESET = "launch/presets/quickstart.toml"
_WORLDS, _WORLD_STEP = 100, 10
"""World of the first round, and from one round to the next: a run takes two, that and the next."""
BOUNDS: Mapping[str, tuple[str, ...]] = {
    "sync": ("learner.max_staleness=0",),
    "async": (),
}
"""What each kind sets."""

Figures = dict[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartRun:
    """What one run came to.

    Attributes:
        trajectories: trained on.
        seconds: of training.
        learner_idle: part of them in which the learner waited for a batch.
        staleness: versions by which actions lagged, mean.
        success: held-out success after training by family of questions, 0 to 1.
    """

    trajectories: int
    seconds: float
    learner_idle: float
    staleness: float
    success: Mapping[str, float]

    @property
    def per_s(self) -> float:
        """Trajectories per second."""
        return self.trajectories / self.seconds


def run_quickstarts(
    rounds: int, *, settings: Sequence[str], say: Callable[[str], None]
) -> dict[str, list[QuickstartRun]]:
    """As many runs of each kind, in turns; who goes first changes.

    Args:
        rounds: of both.
        settings: ``KEY=VALUE``, as for ``lzero train --set``, for both.
        say: gets what is going on.

    Raises:
        RunError: a run failed.
    """
    runs: dict[str, list[QuickstartRun]] = {kind: [] for kind in BOUNDS}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            kinds = list(BOUNDS)[:: 1 if number % 2 == 0 else -1]
            for kind in kinds:
                say(f"quickstart {number + 1} of {rounds}: {kind}")
                folder = Path(name) / f"{kind}-{number}"
                runs[kind].append(_run(folder, number, (*settings, *BOUNDS[kind])))
    return runs


def _run(folder: Path, number: int, settings: Sequence[str]) -> QuickstartRun:
    own = (
        f'run.folder="{folder.parent}"',
        f"run.seed={number}",
        f"world.seed={_WORLDS + number * _WORLD_STEP}",
    )
    words = [word for setting in (*own, *settings) for word in ("--set", setting)]
    cores = len(os.sched_getaffinity(0))
    run_counted(
        "launch.cli", "train", _PRESET, "--name", folder.name, *words,
        folder=REPOSITORY, cores=cores,
    )  # fmt: skip
    return read_quickstart(RunFolder(folder))


def read_quickstart(run: RunFolder) -> QuickstartRun:
    """What a finished run says of itself."""
    summary = json.loads(run.summary.read_text())
    return QuickstartRun(
        trajectories=summary["trajectories"]["trained"],
        seconds=summary["wall_seconds"]["rl"],
        learner_idle=summary["learner"]["idle_fraction"],
        staleness=summary["staleness"]["mean"],
        success={family: share["after"] for family, share in summary["heldout"].items()},
    )


def compare_quickstarts(
    runs: Mapping[str, Sequence[QuickstartRun]],
) -> tuple[Figures, Figures]:
    """Figures and ratios: medians over the rounds, means of success.

    ``heldout_points`` is the difference in success, in points, that is worst for asynchronous
    training: below 0 where it learned less in some family of questions.
    """
    figures: dict[str, float] = {}
    for kind, some in runs.items():
        figures[f"quickstart/{kind}/trajectories_per_s"] = median(run.per_s for run in some)
        figures[f"quickstart/{kind}/learner_idle"] = median(run.learner_idle for run in some)
        figures[f"quickstart/{kind}/staleness"] = median(run.staleness for run in some)
        for family in some[0].success:
            share = fmean(run.success[family] for run in some)
            figures[f"quickstart/{kind}/heldout/{family}"] = share
    figures["quickstart/heldout_points"] = min(
        100 * (figures[f"quickstart/async/heldout/{family}"] - share)
        for family, share in _shares(figures)
    )
    rates = [figures[f"quickstart/{kind}/trajectories_per_s"] for kind in ("async", "sync")]
    return {**figures}, {"quickstart_async_vs_sync": rates[0] / rates[1]}


def _shares(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    """Of synchronous training, by family."""
    start = "quickstart/sync/heldout/"
    return [(name.removeprefix(start), v) for name, v in figures.items() if name.startswith(start)]
