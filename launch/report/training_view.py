"""What there is to see of a training, gathered from its records; no terminal."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from common.telemetry.alerts import present_alerts
from common.telemetry.step_record import StepRecord

_RECENT = 8
_WATCHED = 100
"""Steps over which we look whether anything is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What there is to see of the training at one moment."""

    step: int
    steps: int
    reward: float
    success: dict[str, float]
    heldout: dict[str, float]
    heldout_of: str
    """Which weights that was: ``step 11``, ``version 10``, ``versions 10 to 12``."""
    trajectories_per_s: float
    staleness_mean: float
    staleness_max: int
    depth: float
    credit: float
    dropped: int
    eta_s: float
    alerts: tuple[str, ...] = ()
    """What keeps the run from learning or loses its work, up to the last step."""


class Training:
    """Gathers step records into a ``View``; pure but for the clock it is given."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing seen of ``steps`` optimizer steps yet."""
        self._steps = steps
        self._clock = clock
        self._recent: deque[StepRecord] = deque(maxlen=_RECENT)
        self._heldout: tuple[str, dict[str, float]] = ("", {})
        self._first: tuple[int, float] | None = None
        self._watched: deque[StepRecord] = deque(maxlen=_WATCHED)
        self._staleness_max = 0

    def add(self, records: list[StepRecord], *, is_earlier: bool = False) -> None:
        """Take the records of one look at the metrics file.

        ``is_earlier``: they are from before this command, and say nothing about its pace.
        """
        for record in records:
            self._go_back_to(record.step)
            self._recent.append(record)
            self._watched.append(record)
            self._staleness_max = max(
                self._staleness_max, *(int(key) for key in record.staleness), 0
            )
            if record.heldout:
                self._heldout = (describe_versions(record), record.heldout)
        if records and self._first is None and not is_earlier:
            self._first = (records[-1].step, self._clock())

    def _go_back_to(self, step: int) -> None:
        """Forget records from ``step`` on: a resumed run does these steps again."""
        for seen in (self._recent, self._watched):
            while seen and seen[-1].step >= step:
                seen.pop()

    def view(self) -> View | None:
        """The moment's view, or None before the first step."""
        if not self._recent:
            return None
        last = self._recent[-1]
        return View(
            step=last.step,
            steps=self._steps,
            reward=statistics.fmean(record.reward for record in self._recent),
            success=mean_by_key([record.family_success for record in self._recent]),
            heldout=self._heldout[1],
            heldout_of=self._heldout[0],
            trajectories_per_s=self._rate(),
            staleness_mean=mean_staleness([record.staleness for record in self._recent]),
            staleness_max=self._staleness_max,
            depth=last.depth,
            credit=last.credit,
            dropped=sum(last.dropped.values()),
            eta_s=self._eta_s(last.step),
            alerts=tuple(alert.text for alert in present_alerts(self._watched, steps=self._steps)),
        )

    def _rate(self) -> float:
        """Trajectories per second over the recent steps."""
        seconds = sum(record.step_s for record in self._recent)
        if not seconds:  # records of an earlier version
            return self._recent[-1].trajectories_per_s
        return sum(record.trajectories for record in self._recent) / seconds

    def _eta_s(self, step: int) -> float:
        earliest, last = self._recent[0], self._recent[-1]
        per_step = last.seconds / max(1, last.step)
        if last.step > earliest.step:
            per_step = (last.seconds - earliest.seconds) / (last.step - earliest.step)
        if self._first is not None and step > self._first[0]:
            first_step, first_time = self._first
            per_step = (self._clock() - first_time) / (step - first_step)
        return per_step * max(0, self._steps - step)


def mean_by_key(tables: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each key over the tables that have it."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: statistics.fmean(table[key] for table in tables if key in table) for key in keys}


def mean_staleness(histograms: list[dict[str, int]]) -> float:
    """Mean staleness of all actions counted in ``histograms`` (staleness to count)."""
    total = sum(count for histogram in histograms for count in histogram.values())
    weighted = sum(int(key) * count for histogram in histograms for key, count in histogram.items())
    return weighted / total if total else 0.0


def describe_versions(record: StepRecord) -> str:
    """Which weights answered the held-out questions of a record."""
    if not record.heldout_versions:  # an earlier version of this program
        return f"step {record.step}"
    oldest, newest = record.heldout_versions["oldest"], record.heldout_versions["newest"]
    return f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"


def describe_duration(seconds: float) -> str:
    """Seconds for people: ``48 s``, ``3 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def describe_shares(shares: dict[str, float]) -> str:
    """``one_hop 97 %, two_hop 84 %``."""
    return ", ".join(f"{key} {share:.0%}" for key, share in shares.items()) or "-"


def describe_view(view: View) -> str:
    """One plain line."""
    heldout = f" heldout=[{describe_shares(view.heldout)}] of {view.heldout_of}"
    heldout = heldout if view.heldout else ""
    credit = f"credit {view.credit:.0%} " if view.credit < 1 else ""
    return (
        f"step {view.step}/{view.steps} train=[{describe_shares(view.success)}]{heldout} "
        f"{view.trajectories_per_s:.1f} trajectories/s staleness mean {view.staleness_mean:.1f} "
        f"max {view.staleness_max} depth {view.depth:.2f} {credit}"
        f"ETA {describe_duration(view.eta_s)}"
    )
