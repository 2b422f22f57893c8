"""A result as JSON and as tables on a terminal."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

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
        "published": [dataclasses.asdict(table) for table in tables_beside(result.settings.names)],
        "against": dataclasses.asdict(result.comparison) if result.comparison else None,
    }


def print_result(result: EvalResult, console: Console) -> None:
    """Scores, comparison, published results, and what is missing."""
    say(console, heading(result))
    console.print(_scores(result))
    console.print(_facts(result))
    if result.comparison:
        say(console, f"minus {result.comparison.other}, {result.comparison.common} common tasks")
        console.print(_comparison(result))
        if changed := result.comparison.changed:
            say(console, f"left out: {changed} ids that have another question there")
    for table in tables_beside(result.settings.names):
        console.print(beside(result.results, table))
        say(console, f"{table.source}; {table.note}")
    if result.results.missing:
        say(console, "not there, and published at:\n" + describe_homes(result.results.missing))
    say(console, f"result   {result.folder.results}\npage     {result.folder.report}")


def rows_of(results: Results) -> Iterator[tuple[str, GroupResult]]:
    """All groups with their titles: sets, below them their families, then all together."""
    for name, group in results.sets.items():
        yield name, group
        for family, part in results.families.get(name, {}).items():
            yield f"  {family}", part
    if results.overall is not None:
        yield "all tasks", results.overall


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
    sets = tuple(name for name in table.sets if name in results.sets)
    shown = Table(title=cell(f"{table.name}, exact match in %"), title_justify="left")
    shown.add_column("")
    for name in sets:
        shown.add_column(cell(published().titles[name]), justify="right")
    shown.add_column("mean", justify="right")
    for title, shares in shares_beside(results, table):
        shown.add_row(cell(title), *(f"{100 * share:.1f}" for share in shares))
    return shown


def shares_beside(
    results: Results, table: PublishedTable
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Our row and the published ones: a share per common set, then their mean."""
    sets = tuple(name for name in table.sets if name in results.sets)
    ours = [results.sets[n].scores.get(table.measure, _NOTHING).mean for n in sets]
    yield "this result", (*ours, sum(ours) / len(ours))
    for row in table.rows:
        yield row.name, (*(row.shares[name] for name in sets), row.mean(sets))


_NOTHING = Interval(mean=0.0, low=0.0, high=1.0)


def _scores(result: EvalResult) -> Table:
    results = result.results
    measures = [m for m in measures_in(results) if m not in _PAGE_ONLY]
    passes = passes_in(results)
    table = Table()
    table.add_column("in %, 95 %")
    titles = [TITLES.get(measure, measure) for measure in measures]
    for title in ("tasks", *titles, *(f"pass@{k}" for k in passes)):
        table.add_column(cell(title), justify="right")
    for name, group in rows_of(results):
        found = [group.scores.get(m) for m in measures] + [group.pass_at.get(k) for k in passes]
        table.add_row(cell(name), str(group.tasks), *map(_two_lines, found))
    if results.mean_of_sets:
        means = (results.mean_of_sets.get(measure) for measure in measures)
        table.add_row("mean of sets", "", *("" if m is None else f"{100 * m:.1f}" for m in means))
    return table


def _two_lines(interval: Interval | None) -> str:
    if interval is None:
        return ""
    mean, low, high = (f"{100 * x:.1f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean}\n{low}-{high}"


def _facts(result: EvalResult) -> Table:
    results = result.results
    has_cost = any(group.cost is not None for group in results.sets.values())
    table = Table()
    table.add_column("episodes")
    for title in (*FACTS[1:], *(["cost"] * has_cost)):
        table.add_column(title, justify="right")
    for name, group in rows_of(results):
        cost = "" if group.cost is None else f"{group.cost:.5f}"
        table.add_row(cell(name), *facts_of(group)[1:], *([cost] * has_cost))
    return table


def _comparison(result: EvalResult) -> Table:
    comparison = result.comparison
    assert comparison is not None  # noqa: S101  asked for only where there is one
    table = Table()
    for column in ("", "measure", "difference", "95 % interval", "p", "n"):
        table.add_column(column, justify="left" if column in ("", "measure") else "right")
    for name, differences in comparison.sets.items():
        for measure, one in differences.items():
            table.add_row(
                cell(name),
                cell(TITLES.get(measure, measure)),
                f"{100 * one.mean:+.1f}",
                f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                f"{one.p:.4f}",
                str(one.n),
            )
    return table


def _group(group: GroupResult) -> dict[str, Any]:
    fields = dataclasses.asdict(group)
    fields["pass_at"] = {str(k): interval for k, interval in fields["pass_at"].items()}
    return fields
