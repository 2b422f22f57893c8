"""Shows how far a run is: one live panel on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
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
from common.visible import visible
from launch.report.metrics_tail import LinesTail, parse_record
from launch.report.training_view import (
    Training,
    View,
    describe_duration,
    describe_shares,
    describe_view,
)
from launch.screen import cell, say

_REFRESH_S = 0.25
_PLAIN_NEWS_S = 10.0
_PLAIN_LINES = 20
"""About how many lines a run's steps take without a terminal."""


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
        self._restarts: LinesTail | None = None
        self._note: Callable[[str], None] = lambda text: None
        self._scores: tuple[str, Path, set[str]] | None = None
        self._last_refresh = 0.0
        self._last_plain_step = 0
        self._said: set[str] = set()
        self._look: Callable[[], str] = lambda: ""
        self._news = ""
        self._news_said, self._last_news_said = 0.0, ""

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

    def watch_restarts(self, file: Path, note: Callable[[str], None]) -> None:
        """From now on give ``note`` each restart that an actor adds to ``file``."""
        self._restarts, self._note = LinesTail(file), note
        self._restarts.read()  # those of earlier attempts

    def watch_scores(self, title: str, folder: Path) -> None:
        """From now on show the suite scores that appear in ``folder``."""
        self._scores = (title, folder, set())

    def watch_news(self, look: Callable[[], str]) -> None:
        """From now on show what ``look`` says.

        Without a terminal it is said every few seconds, if what stands before its first comma
        has changed: times that are left change always.
        """
        self._look = look

    def end_news(self) -> None:
        """Say what came last, unless it was said; nothing more is looked at."""
        news = self._look()
        if news != self._last_news_said:
            self.say(news)
        self._look, self._news = (lambda: ""), ""

    def tick(self) -> None:
        """Look for news and show it."""
        self._look_for_news()
        self._look_at_scores()
        self._look_at_alerts()
        self._look_at_restarts()
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

    def _look_for_news(self) -> None:
        news, now = self._look(), time.monotonic()
        is_due = now - self._news_said > _PLAIN_NEWS_S
        is_new = news.partition(",")[0] != self._last_news_said.partition(",")[0]
        if self._live is None and is_due and is_new:
            self._news_said, self._last_news_said = now, news
            self.say(news)
        self._news = news

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

    def _look_at_restarts(self) -> None:
        for text in map(text_of_alert, self._restarts.read() if self._restarts else ()):
            self._note(text)

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
        lines += [cell(self._news)] if self._news else []
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


def _describe_staleness(view: View) -> str:
    mean, most, depth = view.staleness_mean, view.staleness_max, view.depth
    said = f"mean {mean:.1f}, max {most}, sampling {depth:.2f} batches ahead"
    return said if view.credit >= 1 else f"{said}; servers bear {view.credit:.0%} of the episodes"


def _table(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    heldout = describe_shares(view.heldout)
    if view.heldout:
        heldout += f" ({view.heldout_of})"
    rows = (
        ("step", f"{view.step} of {view.steps}"),
        ("training success", describe_shares(view.success)),
        ("held-out success", heldout),
        ("trajectories/s", f"{view.trajectories_per_s:.1f}, dropped {view.dropped}"),
        ("staleness", _describe_staleness(view)),
        ("ETA", describe_duration(view.eta_s)),
    )
    for name, value in rows:
        table.add_row(Text(name, style="dim"), cell(value))
    return table
