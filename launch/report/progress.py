"""Shows how far a run is: one live panel on a terminal, plain lines elsewhere."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.evaluation import SuiteScore, read_score
from common.telemetry.alert_lines import text_of_alert
from common.telemetry.alerts import present_alerts
from common.telemetry.step_record import StepRecord
from common.visible import visible
from launch.report.metrics_tail import LinesTail, parse_record
from launch.screen import cell, say

_RECENT = 8
_WATCHED = 100
"""Steps over which we look whether anything is learned."""
_REFRESH_S = 0.25
_PLAIN_LINES = 20
"""About how many lines a run's steps take without a terminal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What there is to see of the training at one moment."""

    step: int
    steps: int
    reward: float
    success: dict[str, float]
    heldout: dict[str, float]
    heldout_step: int
    trajectories_per_s: float
    staleness_mean: float
    staleness_max: int
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
        self._heldout: tuple[int, dict[str, float]] = (0, {})
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
                self._heldout = (record.step, record.heldout)
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
            heldout_step=self._heldout[0],
            trajectories_per_s=self._rate(),
            staleness_mean=mean_staleness([record.staleness for record in self._recent]),
            staleness_max=self._staleness_max,
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


def describe_duration(seconds: float) -> str:
    """Seconds for people: ``48 s``, ``3 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def describe_shares(shares: dict[str, float]) -> str:
    """``one_hop 97 %, two_hop 84 %``."""
    return ", ".join(f"{key} {share:.0%}" for key, share in shares.items()) or "-"


def describe_view(view: View) -> str:
    """One plain line."""
    heldout = f" heldout=[{describe_shares(view.heldout)}]" if view.heldout else ""
    return (
        f"step {view.step}/{view.steps} train=[{describe_shares(view.success)}]{heldout} "
        f"{view.trajectories_per_s:.1f} trajectories/s staleness mean {view.staleness_mean:.1f} "
        f"max {view.staleness_max} ETA {describe_duration(view.eta_s)}"
    )


class ProgressPanel:
    """What a person sees of a run; call ``tick`` often, it looks for news by itself."""

    def __init__(self, console: Console) -> None:
        """Show on ``console``; live if it is a terminal."""
        self._console = console
        self._live: Live | None = None
        self._phase = ""
        self._phase_started = time.monotonic()
        self._training: Training | None = None
        self._metrics: LinesTail | None = None
        self._alerts: LinesTail | None = None
        self._scores: tuple[str, Path, set[str]] | None = None
        self._last_refresh = 0.0
        self._last_plain_step = 0
        self._said: set[str] = set()

    def __enter__(self) -> "ProgressPanel":
        """Take the bottom of the terminal."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line that stays."""
        say(self._console, text)

    def phase(self, title: str) -> None:
        """Begin something that takes a while."""
        self._phase, self._phase_started = title, time.monotonic()
        if self._live is None:
            self.say(f"{title} ...")
        self.tick()

    def watch_training(self, metrics: Path, steps: int) -> None:
        """From now on show the steps that appear in ``metrics``."""
        self._metrics = LinesTail(metrics)
        self._training = Training(steps)
        self._training.add(list(map(parse_record, self._metrics.read())), is_earlier=True)

    def watch_alerts(self, file: Path) -> None:
        """From now on say each alert that the learner adds to ``file``."""
        self._alerts = LinesTail(file)
        self._alerts.read()  # those of earlier attempts

    def watch_scores(self, title: str, folder: Path) -> None:
        """From now on show the suite scores that appear in ``folder``."""
        self._scores = (title, folder, set())

    def tick(self) -> None:
        """Look for news and show it."""
        self._look_at_scores()
        self._look_at_alerts()
        news = self._look_at_training()
        now = time.monotonic()
        if self._live is not None and (news or now - self._last_refresh > _REFRESH_S):
            self._last_refresh = now
            self._live.update(self._panel(), refresh=True)

    def _look_at_training(self) -> bool:
        if self._metrics is None or self._training is None:
            return False
        records = list(map(parse_record, self._metrics.read()))
        self._training.add(records)
        view = self._training.view()
        if records and view is not None and self._live is None:
            every = max(1, view.steps // _PLAIN_LINES)
            is_due = view.step - self._last_plain_step >= every or view.step >= view.steps
            if is_due or any(record.heldout for record in records):
                self._last_plain_step = view.step
                self.say(describe_view(view))
            self._say_alerts(view)
        return bool(records)

    def _say_alerts(self, view: View) -> None:
        """Say once what keeps the run from learning; its numbers change, its remedy does not."""
        for text in view.alerts:
            remedy = text.partition(";")[2]
            if remedy not in self._said:
                self._said.add(remedy)
                self.say(text)

    def _look_at_alerts(self) -> None:
        for text in map(text_of_alert, self._alerts.read() if self._alerts else ()):
            if text:
                self.say(text)

    def _look_at_scores(self) -> None:
        if self._scores is None:
            return
        title, folder, seen = self._scores
        for file in sorted(folder.glob("*.json")):
            if file.name not in seen:
                try:
                    score = read_score(file)
                except (ValueError, KeyError, TypeError):
                    continue  # still being written
                seen.add(file.name)
                self.say(f"{title} {describe_score(score)}".strip())

    def _panel(self) -> RenderableType:
        spent = describe_duration(time.monotonic() - self._phase_started)
        lines: list[RenderableType] = [cell(f"{self._phase} ({spent})")]
        view = self._training.view() if self._training is not None else None
        if view is not None:
            bar = ProgressBar(total=view.steps, completed=view.step)
            lines += [Padding(bar, 0), _table(view)]
            lines += [Text(visible(text), "bold red") for text in view.alerts]
        return Panel(Group(*lines), title="L-Zero", title_align="left")


def describe_score(score: SuiteScore) -> str:
    """``heldout: one_hop 97.3 % (n 400), two_hop 84.0 % (n 400) in 21 s``."""
    families = ", ".join(
        f"{name} {family.exact_match:.1%} (n {family.n}{_describe_lost(family.dropped)})"
        for name, family in score.families.items()
    )
    return f"{score.suite.name}: {families} in {score.seconds:.0f} s"


def _describe_lost(dropped: int) -> str:
    return f", {dropped} lost" if dropped else ""


def _table(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    heldout = describe_shares(view.heldout)
    if view.heldout:
        heldout += f" (step {view.heldout_step})"
    rows = (
        ("step", f"{view.step} of {view.steps}"),
        ("training success", describe_shares(view.success)),
        ("held-out success", heldout),
        ("trajectories/s", f"{view.trajectories_per_s:.1f}, dropped {view.dropped}"),
        ("staleness", f"mean {view.staleness_mean:.1f}, max {view.staleness_max}"),
        ("ETA", describe_duration(view.eta_s)),
    )
    for name, value in rows:
        table.add_row(Text(name, style="dim"), cell(value))
    return table
