"""How a training went: what it had learnt after how many seconds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class Point:
    """The end of one optimizer step.

    Attributes:
        seconds: since the first episode began, with processes started and models loaded.
        success: share of right answers in the batch of this step, before it was learnt from.
    """

    seconds: float
    success: float


@dataclass(frozen=True, kw_only=True)
class SideRun:
    """One training of one side.

    Attributes:
        points: one per optimizer step, in order.
        start_s: seconds of the whole command besides training: to start and to end.
        cpu_s: seconds of processors of the whole command, start included.
        processes: most that lived at once.
        staleness_mean: versions by which sampled actions lagged behind the weights they trained.
        staleness_max: the most.
    """

    points: tuple[Point, ...]
    start_s: float
    cpu_s: float
    processes: int
    staleness_mean: float = 0.0
    staleness_max: int = 0

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.points[-1].seconds


def smooth_success(points: Sequence[Point], window: int) -> list[float]:
    """Mean success of each step and the ``window - 1`` before it, from the first full window on."""
    ends = range(window, len(points) + 1)
    return [fmean(point.success for point in points[end - window : end]) for end in ends]


def seconds_to(level: float, points: Sequence[Point], window: int) -> float | None:
    """Seconds until the smoothed success reaches ``level``; None where it never does."""
    smooth = smooth_success(points, window)
    reached = (n for n, success in enumerate(smooth) if success >= level)
    first = next(reached, None)
    return None if first is None else points[first + window - 1].seconds


def common_level(runs: Sequence[SideRun], window: int) -> float | None:
    """The highest smoothed success that every run reached; None where runs are too short."""
    best = [max(smooth_success(run.points, window), default=None) for run in runs]
    known = [level for level in best if level is not None]
    return min(known) if known and len(known) == len(runs) else None
