"""The self-contained page about a result: scores, comparisons, whole episodes."""

import dataclasses
import time
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from common.episode_record import EvaluationRecord
from common.json_output import json_text
from launch.evaluate.estimates import Interval
from launch.evaluate.published import PublishedTable, published
from launch.evaluate.results import MAIN, Results
from launch.evaluate.run import EvalResult
from launch.evaluate.sets import describe_homes
from launch.evaluate.show import (
    ALL_TASKS,
    COMPARED,
    FACTS,
    TITLES,
    as_json,
    compared_rows,
    facts_of,
    heading,
    measures_in,
    passes_in,
    percent,
    rows_of,
    sets_beside,
    shares_beside,
    tables_of,
    told_failures,
)
from launch.report.charts import interval_bars
from launch.report.page import describe_step, style_sheet, tile_row
from launch.screen import html_text

SHOWN = 2
"""Right and wrong episodes of each set."""


def write_page(result: EvalResult) -> None:
    """Write ``report.html``, which refers to nothing outside itself."""
    page = Template(files("launch.evaluate").joinpath("page.html").read_text(encoding="utf-8"))
    text = page.substitute(
        style=style_sheet(),
        name=html_text(result.settings.model),
        subtitle=html_text(f"{heading(result)}, {time.strftime('%Y-%m-%d')}"),
        tiles=_tiles(result.results),
        alerts=_alerts(result.results),
        chart=_chart(result.results),
        scores=_scores(result.results),
        comparison=_comparison(result),
        published="".join(_beside(result, t) for t in tables_of(result)),
        facts=_facts(result.results),
        episodes=_episodes(result.folder.read_episodes(), result.settings.names),
        settings_json=html_text(json_text(dataclasses.asdict(result.settings), indent=1)),
        results_json=html_text(json_text(as_json(result), indent=1)),
    )
    result.folder.report.write_text(text, encoding="utf-8")


def _tiles(results: Results) -> str:
    groups = [*results.sets.items()]
    if results.overall is not None:
        groups.append((ALL_TASKS, results.overall))
    return tile_row(
        [
            (
                f"{name}, exact",
                f"{group.scores[MAIN].mean:.1%}" if group.scores else "no result",
                f"n {group.tasks}",
            )
            for name, group in groups
        ]
    )


def _alerts(results: Results) -> str:
    said = ["\n".join(told)] if (told := told_failures(results)) else []
    if results.missing:
        said.append(
            "Sets that were not there, and where they are published:\n"
            + describe_homes(results.missing)
        )
    return "".join(
        f'<p class="alert" style="white-space: pre-wrap">{html_text(text)}</p>' for text in said
    )


def _chart(results: Results) -> str:
    bars = [
        (title.replace("  ", "– ", 1), _ends(group.scores[MAIN]))
        for title, group in rows_of(results)
        if group.scores
    ]
    return interval_bars(bars, title="exact match by set") if len(bars) > 1 else ""


def _ends(interval: Interval) -> tuple[float, float, float]:
    return (interval.mean, interval.low, interval.high)


def _scores(results: Results) -> str:
    measures, passes = measures_in(results), passes_in(results)
    head = ["", "tasks", *(TITLES.get(m, m) for m in measures), *(f"pass@{k}" for k in passes)]
    rows = [
        (
            title,
            str(group.tasks),
            *(percent(group.scores.get(m)) for m in measures),
            *(percent(group.pass_at.get(k)) for k in passes),
        )
        for title, group in rows_of(results)
    ]
    if results.mean_of_sets:
        means = (results.mean_of_sets.get(m) for m in measures)
        shown = ("" if m is None else f"{100 * m:.1f} %" for m in means)
        rows.append(("mean of sets", "", *shown, *([""] * len(passes))))
    return _table(head, rows)


def _facts(results: Results) -> str:
    has_cost = any(group.cost is not None for group in results.sets.values())
    rows = [
        (title, *facts_of(group), *([f"{group.cost or 0:.5f}"] * has_cost))
        for title, group in rows_of(results)
    ]
    return _table(["", *FACTS, *(["cost"] * has_cost)], rows)


def _comparison(result: EvalResult) -> str:
    comparison = result.comparison
    if comparison is None:
        return ""
    changed = f" Left out: {comparison.changed} ids that have another question there."
    return (
        f"<h2>Compared with {html_text(comparison.other)}</h2><p>This result minus the other, in "
        f"percentage points, over the {comparison.common} tasks that both were asked; interval and "
        f"p (two-sided) by resampling pairs.{changed if comparison.changed else ''}</p>"
        + f'<div class="wide">{_table(COMPARED, list(compared_rows(comparison)))}</div>'
    )


def _beside(result: EvalResult, table: PublishedTable) -> str:
    titles = (published().titles[name] for name in sets_beside(result.results, table))
    head = ["", *titles, "mean"]
    rows = [
        (title, *(f"{100 * share:.1f}" for share in shares))
        for title, shares in shares_beside(result.results, table)
    ]
    return (
        f"<h2>Beside {html_text(table.name)}</h2><p>{html_text(table.source)}. "
        f"{html_text(table.note)}. Exact match in %, of this result by the published script.</p>"
        + f'<div class="wide">{_table(head, rows, ours=1)}</div>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, ours: int = 0) -> str:
    """A table; the first ``ours`` rows stand out, and those whose title is indented are parts."""
    lines = [f"<tr>{''.join(f'<th>{html_text(title)}</th>' for title in head)}</tr>"]
    for number, row in enumerate(rows):
        kind = "ours" if number < ours else "part" if row[0].startswith("  ") else ""
        cells = "".join(f"<td>{html_text(text)}</td>" for text in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _episodes(records: Sequence[EvaluationRecord], names: Sequence[str]) -> str:
    parts = []
    for name in names:
        own = [record for record in records if record.question_set == name and record.steps]
        right = [record for record in own if record.is_exact][:SHOWN]
        wrong = [record for record in own if not record.is_exact][:SHOWN]
        if own:
            parts.append(f"<h3>{html_text(name)}</h3>" + "".join(map(_episode, right + wrong)))
    return "".join(parts)


def _episode(record: EvaluationRecord) -> str:
    verdict = "right" if record.is_exact else "wrong"
    steps = "".join(map(describe_step, record.steps))
    ending = record.outcome.replace("_", " ")
    if record.answer is not None:
        ending += f": {record.answer}"
    question = html_text(record.task.question)
    return (
        f'<div class="pair"><div class="episode {verdict}"><h4>{question}</h4>'
        f'<p class="gold">answer: {html_text(" or ".join(record.task.answers))}</p><ol>{steps}</ol>'
        f'<p class="verdict">{html_text(ending)} ({verdict})</p></div></div>'
    )
