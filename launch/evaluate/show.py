"""A result as JSON and as tables on a terminal."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.evaluate.comparison import Comparison
from launch.evaluate.estimates import Interval
from launch.evaluate.published import PublishedTable, published, tables_beside
from launch.evaluate.results import GroupResult, Results
from launch.evaluate.run import EvalResult
from launch.evaluate.sets import describe_homes
from launch.screen import cell, say

FORMAT = 1
"""Of the JSON; a number is added when a field changes its meaning or goes."""

TITLES = {
    "exact_match": "exact",
    "squad_exact_match": "SQuAD EM",
    "f1": "F1",
    "squad_f1": "SQuAD F1",
    "contains": "contains",
}
"""Measures as tables call them; others go by their own name."""
_PAGE_ONLY = ("squad_f1",)
"""Measures that a terminal has no room for."""
_NAME_WIDTH = 10
ALL_TASKS = "all tasks"
SHOWN_FAILURES = 3
COMPARED = ("", "measure", "difference", "interval (95%)", "p", "n")
FACTS = ("tasks", "failed", "answers", "steps", "tokens in", "tokens out", "seconds")


def as_json(result: EvalResult) -> dict[str, Any]:
    """What ``--json`` prints and ``results.json`` holds."""
    results = result.results
    return {
        "format": FORMAT,
        "folder": str(result.folder.path),
        "settings": dataclasses.asdict(result.settings),
        "sets": {name: _group(group) for name, group in results.sets.items()},
        "families": {
            name: {family: _group(group) for family, group in families.items()}
            for name, families in results.families.items()
        },
        "overall": _group(results.overall) if results.overall else None,
        "mean_of_sets": results.mean_of_sets,
        "missing": {name: published().homes[name] for name in results.missing},
        "failures": results.failures,
        "published": [dataclasses.asdict(table) for table in tables_beside(result.settings.names)],
        "against": dataclasses.asdict(result.comparison) if result.comparison else None,
    }


def print_result(result: EvalResult, console: Console) -> None:
    """Scores, comparison, published results, and what is missing."""
    say(console, heading(result))
    console.print(_scores(result.results))
    if passes_in(result.results):
        console.print(_passes(result.results))
    console.print(_facts(result.results))
    if result.comparison:
        say(console, f"minus {result.comparison.other}, {result.comparison.common} common tasks")
        console.print(_comparison(result.comparison))
        if changed := result.comparison.changed:
            say(console, f"left out: {changed} ids that have another question there")
    for table in tables_of(result):
        console.print(beside(result.results, table))
        console.print(cell(f"{table.source}; {table.note}"))
    if result.results.missing:
        say(console, "not there, and published at:\n" + describe_homes(result.results.missing))
    say(console, f"result   {result.folder.results}\npage     {result.folder.report}")


def tables_of(result: EvalResult) -> Iterator[PublishedTable]:
    """Published tables about a set of which this result has the same measure."""
    for table in tables_beside(result.settings.names):
        if sets_beside(result.results, table):
            yield table


def sets_beside(results: Results, table: PublishedTable) -> tuple[str, ...]:
    """The sets of a published table of which this result has the same measure."""
    return tuple(
        name
        for name in table.sets
        if name in results.sets and table.measure in results.sets[name].scores
    )


def told_failures(results: Results) -> list[str]:
    """How many episodes failed through the machinery, and the most common reasons."""
    if not results.failed:
        return []
    shown = list(results.failures.items())[:SHOWN_FAILURES]
    more = len(results.failures) - len(shown)
    return [
        f"{results.failed} episodes failed through no fault of the model and are not counted; the "
        "same command asks them again",
        *(f"  {count} x {reason}" for reason, count in shown),
        *([f"  and {more} other reasons"] if more else []),
    ]


def compared_rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Of what ``COMPARED`` names, a row per set and measure, then over all sets."""
    for name, differences in (*comparison.sets.items(), (ALL_TASKS, comparison.overall)):
        for measure, one in differences.items():
            yield (
                name,
                TITLES.get(measure, measure),
                f"{100 * one.mean:+.1f}",
                f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                f"{one.p:.4f}",
                str(one.n),
            )


def rows_of(results: Results) -> Iterator[tuple[str, GroupResult]]:
    """All groups with their titles: sets, below them their families, then all together."""
    for name, group in results.sets.items():
        yield name, group
        for family, part in results.families.get(name, {}).items():
            yield f"  {family}", part
    if results.overall is not None:
        yield ALL_TASKS, results.overall


def measures_in(results: Results) -> list[str]:
    """Every measure that any set has."""
    return list(dict.fromkeys(m for group in results.sets.values() for m in group.scores))


def passes_in(results: Results) -> list[int]:
    """Every k of pass@k that any set has."""
    return sorted({k for group in results.sets.values() for k in group.pass_at})


def percent(interval: Interval | None) -> str:
    """``24.3 % (19.1-30.2)``."""
    if interval is None:
        return ""
    return f"{100 * interval.mean:.1f} % ({100 * interval.low:.1f}-{100 * interval.high:.1f})"


def facts_of(group: GroupResult) -> tuple[str, ...]:
    """Of a group, what ``FACTS`` names."""
    return (
        str(group.tasks),
        str(group.failed),
        f"{group.submitted:.1%}",
        f"{group.steps:.1f}",
        f"{group.prompt_tokens:.0f}",
        f"{group.generated_tokens:.0f}",
        f"{group.seconds:.1f}",
    )


def heading(result: EvalResult) -> str:
    """Who was asked, and how."""
    given = result.settings
    samples = f", {given.samples} samples" if given.samples > 1 else ""
    return f"{given.model}, mode {given.mode}, temperature {given.temperature:g}{samples}"


def beside(results: Results, table: PublishedTable) -> Table:
    """Our shares above the published ones, over the sets that both have."""
    titles = (published().titles[name] for name in sets_beside(results, table))
    shown = _table("", (*titles, "mean"), title=f"{table.name}, exact match in %")
    for title, shares in shares_beside(results, table):
        shown.add_row(cell(title), *(f"{100 * share:.1f}" for share in shares))
    return shown


def shares_beside(
    results: Results, table: PublishedTable
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Our row and the published ones: a share per common set, then their mean."""
    sets = sets_beside(results, table)
    ours = [results.sets[name].scores[table.measure].mean for name in sets]
    yield "this result", (*ours, sum(ours) / len(ours))
    for row in table.rows:
        yield row.name, (*(row.shares[name] for name in sets), row.mean(sets))


def _scores(results: Results) -> Table:
    measures = [measure for measure in measures_in(results) if measure not in _PAGE_ONLY]
    titles = (TITLES.get(measure, measure) for measure in measures)
    table = _table("in %, 95 %", ("tasks", *titles))
    for name, group in rows_of(results):
        found = (group.scores.get(measure) for measure in measures)
        table.add_row(cell(name), str(group.tasks), *map(_two_lines, found))
    if results.mean_of_sets:
        means = (results.mean_of_sets.get(measure) for measure in measures)
        table.add_row("mean of sets", "", *("" if m is None else f"{100 * m:.1f}" for m in means))
    return table


def _passes(results: Results) -> Table:
    passes = passes_in(results)
    table = _table("in %, 95 %", [f"pass@{k}" for k in passes])
    for name, group in rows_of(results):
        table.add_row(cell(name), *(_two_lines(group.pass_at.get(k)) for k in passes))
    return table


def _two_lines(interval: Interval | None) -> str:
    if interval is None:
        return ""
    mean, low, high = (f"{100 * x:.1f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean}\n{low}-{high}"


def _facts(results: Results) -> Table:
    has_cost = any(group.cost is not None for group in results.sets.values())
    table = _table("episodes", (*FACTS[1:], *(["cost"] * has_cost)))
    for name, group in rows_of(results):
        cost = "" if group.cost is None else f"{group.cost:.5f}"
        table.add_row(cell(name), *facts_of(group)[1:], *([cost] * has_cost))
    return table


def _comparison(comparison: Comparison) -> Table:
    table = _table(COMPARED[0], COMPARED[1:])
    for row in compared_rows(comparison):
        table.add_row(*map(cell, row))
    return table


def _table(first: str, others: Iterable[str], *, title: str | None = None) -> Table:
    """A table whose numbers are whole where there is room for them; names are folded instead."""
    table = Table(title=None if title is None else cell(title), title_justify="left")
    table.add_column(first, overflow="fold", min_width=_NAME_WIDTH)
    for name in others:
        words = Text("\n").join(map(cell, name.split()))
        table.add_column(words, justify="right", no_wrap=True)
    return table


def _group(group: GroupResult) -> dict[str, Any]:
    fields = dataclasses.asdict(group)
    fields["pass_at"] = {str(k): interval for k, interval in fields["pass_at"].items()}
    return fields
