"""A pretrained model at three points: as it came, after its warm start, after training.

Only runs of ``lzero real`` have the first; others get nothing from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from launch.evaluate.estimates import wilson
from launch.report.summary import BeforeAfter, Summary
from launch.screen import cell, html_text

COLUMNS = ("as it came", "after the warm start", "after training")
SMALLEST_SHARE = 0.05
"""A strategy that no point has in so many episodes is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsRow:
    """A line of a table: what, and its value at each point."""

    what: str
    values: tuple[str, str, str]


def success_rows(summary: Summary) -> list[PointsRow]:
    """Success by suite and family, with 95 % intervals; none without the first point."""
    if not summary.untouched:
        return []
    suites: tuple[tuple[str, dict[str, BeforeAfter], dict[str, BeforeAfter]], ...] = (
        ("", summary.heldout, summary.untouched),
        (", greedy", summary.heldout_greedy, {}),
        (", wordings never trained on", summary.heldout_wordings, {}),
        (", unseen names", summary.unseen_names, {}),
        (", search switched off", summary.search_disabled, {}),
    )
    return [
        _success(f"{family.replace('_', '-')}{title}", pair, untouched.get(family))
        for title, pairs, untouched in suites
        for family, pair in pairs.items()
    ]


def strategy_rows(summary: Summary) -> list[PointsRow]:
    """What it does, by family: the share of held-out episodes in which each strategy occurs."""
    if not summary.untouched:
        return []
    points = [summary.strategies.get(when, {}) for when in ("untouched", "before", "after")]
    rows = []
    for family in dict.fromkeys(name for point in points for name in point):
        by_point = [point.get(family, {}) for point in points]
        for strategy in dict.fromkeys(name for shares in by_point for name in shares):
            shares = [shares.get(strategy, 0.0) for shares in by_point]
            if max(shares) >= SMALLEST_SHARE:
                first, second, third = (f"{share:.0%}" for share in shares)
                what = f"{family.replace('_', '-')}: {strategy}"
                rows.append(PointsRow(what=what, values=(first, second, third)))
    return rows


def three_points_section(summary: Summary) -> str:
    """Both tables for the page; empty without the first point."""
    if not summary.untouched:
        return ""
    n = max(pair.n for pair in summary.untouched.values())
    return (
        "<h2>From the model as it came to what it learned</h2><p>Share of held-out questions "
        "answered exactly, with the interval of 95 % (Wilson) and the number of questions. As it "
        f"came, the model was asked the first {n} questions of each family, with the shipped "
        "prompt and, unless its recipe says otherwise, greedily.</p>"
        + _html_table("success", success_rows(summary))
        + "<p>Share of the sampled held-out episodes in which it did this at least once.</p>"
        + _html_table("what it does", strategy_rows(summary))
    )


def three_points_tables(summary: Summary) -> Iterator[Table]:
    """The same for a terminal."""
    titles = ("the model at three points: held-out success", "what it does in held-out episodes")
    for title, rows in zip(titles, (success_rows(summary), strategy_rows(summary)), strict=True):
        if rows:
            table = Table(title=cell(title), title_justify="left")
            table.add_column("")
            for column in COLUMNS:
                table.add_column(column, justify="right")
            for row in rows:
                table.add_row(cell(row.what), *map(cell, row.values))
            yield table


def _success(what: str, pair: BeforeAfter, untouched: BeforeAfter | None) -> PointsRow:
    first = _share(untouched.before, untouched.n) if untouched else ""
    return PointsRow(
        what=what, values=(first, _share(pair.before, pair.n), _share(pair.after, pair.n))
    )


def _share(share: float | None, n: int) -> str:
    if share is None:
        return ""
    interval = wilson(share, n)
    return f"{share:.1%} ({interval.low:.0%} to {interval.high:.0%}, n {n})"


def _html_table(name: str, rows: list[PointsRow]) -> str:
    head = "".join(f"<th>{html_text(column)}</th>" for column in COLUMNS)
    body = "".join(
        f"<tr><td>{html_text(row.what)}</td>"
        + "".join(f"<td>{html_text(value)}</td>" for value in row.values)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr><th>{html_text(name)}</th>{head}</tr>{body}</table>"
