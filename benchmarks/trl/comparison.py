"""Figures of both sides, and how many times faster ours is. Pure."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.report import ratio
from benchmarks.trl.curve import SideRun, common_level, seconds_to, smooth_success

Figures = dict[str, float | None]
OURS, TRL = "ours", "trl"


def compare(
    runs: Mapping[str, Sequence[SideRun]], *, batch: int, window: int
) -> tuple[Figures, Figures]:
    """Medians over the rounds.

    Args:
        runs: of each side, ``ours`` and ``trl``, one per round.
        batch: trajectories of a step.
        window: steps over which success is averaged.

    Returns:
        Figures, and ratios of ours over TRL.
    """
    level = common_level([run for side in runs.values() for run in side], window)
    figures: Figures = {"equal_success": level}
    for name, side in runs.items():
        figures |= {f"{name}_{key}": value for key, value in _figures(side, batch, window).items()}
        figures[f"{name}_s_to_equal_success"] = _seconds_to(level, side, window)
    rates = (figures[f"{TRL}_trajectories_per_s"], figures[f"{OURS}_trajectories_per_s"])
    seconds = (figures[f"{OURS}_s_to_equal_success"], figures[f"{TRL}_s_to_equal_success"])
    ratios = {"vs_trl": ratio(*rates), "s_to_equal_success_vs_trl": ratio(*seconds)}
    ratios["cpu_time_vs_trl"] = ratio(figures[f"{OURS}_cpu_s"], figures[f"{TRL}_cpu_s"])
    return figures, ratios


def _figures(side: Sequence[SideRun], batch: int, window: int) -> Figures:
    def middle(value: Callable[[SideRun], float | None]) -> float | None:
        return _median([value(run) for run in side])

    return {
        "trajectories_per_s": middle(lambda run: batch * len(run.points) / run.seconds),
        "train_s": middle(lambda run: run.seconds),
        "cpu_s": middle(lambda run: run.cpu_s),
        "start_s": middle(lambda run: run.start_s),
        "success_at_first": middle(lambda run: _smooth(run, window, 0)),
        "success_at_last": middle(lambda run: _smooth(run, window, -1)),
        "processes": max(run.processes for run in side),
        "staleness_mean": middle(lambda run: run.staleness_mean),
        "staleness_max": max(run.staleness_max for run in side),
    }


def _smooth(run: SideRun, window: int, place: int) -> float | None:
    smooth = smooth_success(run.points, window)
    return smooth[place] if smooth else None


def _seconds_to(level: float | None, side: Sequence[SideRun], window: int) -> float | None:
    if level is None:
        return None
    return _median([seconds_to(level, run.points, window) for run in side])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None
