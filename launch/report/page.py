"""The self-contained page about a run: what was learned, how stale it was, whole trajectories."""

import dataclasses
import re
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from string import Template

from common.config import Config
from common.episode_record import EvaluationRecord, read_evaluation
from common.json_output import json_text
from common.telemetry.step_record import StepRecord
from common.wire.records import Step
from launch.plan.evaluation import HELDOUT
from launch.report.charts import (
    COLOURS,
    Series,
    histogram,
    legend,
    line_chart,
    paired_bars,
    smoothed,
)
from launch.report.closing import families_of, score_tables
from launch.report.metrics_tail import read_metrics
from launch.report.summary import BeforeAfter, Summary
from launch.report.three_points import three_points_section
from launch.report.training_view import describe_duration
from launch.run.folder import RunFolder
from launch.screen import html_text

SHOWN_PER_FAMILY = 2
"""Questions per family whose trajectories are shown before and after."""

_PARTS = re.compile(r"<think>(?P<think>.*?)</think>|<code>(?P<code>.*?)(?:</code>|$)", re.DOTALL)


def write_report(folder: RunFolder, config: Config, summary: Summary) -> None:
    """Write ``report.html``, which refers to nothing outside itself."""
    metrics = read_metrics(folder.metrics)
    before, after = (
        _episodes(folder.evaluation / when / f"{HELDOUT}.jsonl") for when in ("before", "after")
    )
    page = Template(files("launch.report").joinpath("page.html").read_text(encoding="utf-8"))
    text = page.substitute(
        style=style_sheet(),
        name=html_text(summary.name),
        subtitle=html_text(_subtitle(summary, config)),
        tiles=_tiles(summary),
        alerts=_alerts(summary),
        curves=learning_curves(metrics, summary),
        scores=_score_table(summary),
        three_points=three_points_section(summary),
        strategies=_strategies(summary),
        staleness=_staleness(summary),
        throughput=_throughput(metrics),
        time_table=_time_table(summary),
        trajectories=trajectory_pairs(before, after),
        summary_json=html_text(json_text(dataclasses.asdict(summary), indent=1)),
        config_json=html_text(json_text(dataclasses.asdict(config), indent=1)),
    )
    folder.report.write_text(text, encoding="utf-8")


def style_sheet() -> str:
    """What all pages look like."""
    return files("launch.report").joinpath("style.css").read_text(encoding="utf-8")


def learning_curves(metrics: Sequence[StepRecord], summary: Summary) -> str:
    """Training and held-out success by family over the optimizer steps."""
    families = list(dict.fromkeys(key for record in metrics for key in record.family_success))
    series = []
    for family, colour in zip(families, COLOURS, strict=False):
        trained = [
            (float(record.step), record.family_success[family])
            for record in metrics
            if family in record.family_success
        ]
        label = family.replace("_", "-")
        series.append(
            Series(
                name=f"{label}, training (mean of 5 batches)",
                colour=colour,
                points=trained,
                smooth=smoothed(trained),
            )
        )
        held = _heldout_points(metrics, summary, family)
        if held:
            series.append(
                Series(
                    name=f"{label}, held-out (circles)", colour=colour, points=held, is_marked=True
                )
            )
    return line_chart(
        series,
        title="Success over optimizer steps",
        x_label="optimizer step",
        width=860,
        height=320,
    )


def trajectory_pairs(before: Sequence[EvaluationRecord], after: Sequence[EvaluationRecord]) -> str:
    """The same held-out questions before and after training, side by side."""
    later = {episode.task.task_id: episode for episode in after}
    pairs = [(early, later[early.task.task_id]) for early in before if early.task.task_id in later]
    return "".join(_pair(early, late) for early, late in choose_pairs(pairs, SHOWN_PER_FAMILY))


def choose_pairs(
    pairs: Sequence[tuple[EvaluationRecord, EvaluationRecord]], per_family: int
) -> list[tuple[EvaluationRecord, EvaluationRecord]]:
    """For each family, first what training repaired, then one that is still wrong."""
    chosen = []
    for family in dict.fromkeys(early.family for early, _ in pairs):
        own = [pair for pair in pairs if pair[0].family == family]
        repaired = [pair for pair in own if pair[1].is_exact and not pair[0].is_exact]
        still_wrong = [pair for pair in own if not pair[1].is_exact]
        chosen += repaired[:per_family] + still_wrong[:1]
    return chosen


def describe_step(step: Step) -> str:
    """One action, think and code apart, and what it caused."""
    parts = []
    for match in _PARTS.finditer(step.action):
        if match["think"] is not None:
            parts.append(f'<p class="think">{html_text(match["think"].strip())}</p>')
        elif match["code"]:
            parts.append(f"<pre>{html_text(match['code'].strip())}</pre>")
    if not parts:
        parts.append(f"<pre>{html_text(step.action.strip())}</pre>")
    if step.observation.strip():
        parts.append(f'<pre class="observation">{html_text(step.observation.strip())}</pre>')
    return f"<li>{''.join(parts)}</li>"


def _episodes(path: Path) -> list[EvaluationRecord]:
    return read_evaluation(path) if path.is_file() else []


def _heldout_points(
    metrics: Sequence[StepRecord], summary: Summary, family: str
) -> list[tuple[float, float]]:
    points = [
        (_middle(record), record.heldout[family]) for record in metrics if family in record.heldout
    ]
    pair = summary.heldout.get(family)
    if pair is not None and pair.before is not None:
        points.insert(0, (0.0, pair.before))
    if pair is not None and pair.after is not None and metrics:
        points = [point for point in points if point[0] != float(metrics[-1].step)]
        points.append((float(metrics[-1].step), pair.after))
    return points


def _middle(record: StepRecord) -> float:
    """The middle of the weight versions that answered the held-out questions of a record."""
    return fmean(record.heldout_versions.values() or (record.step,))


def _subtitle(summary: Summary, config: Config) -> str:
    commit = f", commit {summary.commit[:12]}" if summary.commit else ""
    return (
        f"seed {summary.seed}{commit}, {config.run.steps} steps of {config.learner.groups} groups "
        f"of {config.learner.group_size}, {time.strftime('%Y-%m-%d')}"
    )


def _tiles(summary: Summary) -> str:
    tiles = [
        (f"{family.replace('_', '-')} success, held-out", _change(pair), f"n {pair.n}, sampled")
        for family, pair in summary.heldout.items()
    ]
    counts, stale, wall = summary.trajectories, summary.staleness, summary.wall_seconds
    rate = counts.trained / wall.rl if wall.rl else 0.0
    tiles += [
        ("reinforcement learning", describe_duration(wall.rl), f"{rate:.1f} trajectories/s"),
        ("staleness seen", f"max {stale.max}", f"bound {stale.bound}, mean {stale.mean:.2f}"),
    ]
    return tile_row(tiles)


def tile_row(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Boxes with a name, a value and a note."""
    return "".join(
        f'<div class="tile"><span>{html_text(name)}</span><b>{html_text(value)}</b>'
        f"<small>{html_text(note)}</small></div>"
        for name, value, note in tiles
    )


def _alerts(summary: Summary) -> str:
    return "".join(
        f'<p class="alert">{html_text(alert[:1].upper() + alert[1:])}.</p>'
        for alert in summary.alerts
    )


def _change(pair: BeforeAfter) -> str:
    shares = [f"{share:.0%}" for share in (pair.before, pair.after) if share is not None]
    return " → ".join(shares)


def _score_table(summary: Summary) -> str:
    tables = score_tables(summary)
    families = families_of(summary)
    head = "".join(
        f"<th>{html_text(family.replace('_', '-'))} before</th><th>after</th><th>n</th>"
        for family in families
    )
    rows = "".join(
        f"<tr><td>{html_text(title)}</td>{''.join(_cells(table.get(f)) for f in families)}</tr>"
        for title, table in tables
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>" if rows else "<p>No evaluation.</p>"


def _cells(pair: BeforeAfter | None) -> str:
    if pair is None:
        return "<td></td><td></td><td></td>"
    before, after = ("" if share is None else f"{share:.1%}" for share in (pair.before, pair.after))
    return f"<td>{before}</td><td><b>{after}</b></td><td>{pair.n}</td>"


def _strategies(summary: Summary) -> str:
    before, after = (summary.strategies.get(when, {}) for when in ("before", "after"))
    charts = [
        f"<figure><figcaption>{html_text(family.replace('_', '-'))}</figcaption>"
        + paired_bars(before.get(family, {}), after.get(family, {}), title=f"strategies, {family}")
        + "</figure>"
        for family in dict.fromkeys([*before, *after])
    ]
    if not charts:
        return "<p>Strategies are told apart only in the generated world.</p>"
    key = legend([("before training", "#b9c6cc"), ("after", COLOURS[0])])
    return f'<div class="columns">{"".join(charts)}</div>{key}'


def _staleness(summary: Summary) -> str:
    stale, mismatch, counts = summary.staleness, summary.logprob_mismatch, summary.trajectories
    by_staleness = {
        key: stale.histogram[key] for key in sorted(stale.histogram, key=lambda key: int(key))
    }
    chart = histogram(by_staleness, title="Staleness of actions", x_label="versions behind")
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items()) or "none"
    rows = (
        ("bound (learner.max_staleness)", str(stale.bound)),
        ("depth at the end (batches that sampling may run ahead)", f"{stale.depth:.2f}"),
        (
            "credit at the end (part of the episodes asked for that servers bear)",
            f"{stale.credit:.0%}",
        ),
        ("largest seen, mean", f"{stale.max}, {stale.mean:.2f}"),
        ("weight versions published", str(summary.weight_versions)),
        ("trajectories trained, of started", f"{counts.trained} of {counts.started}"),
        ("dropped", dropped),
        ("log-prob mismatch at staleness 0, mean", f"{mismatch.mean_abs:.1e}"),
        ("the same, largest", f"{mismatch.max_abs:.1e} of {mismatch.tokens} tokens"),
        *summary.compute.items(),
    )
    return f'<div class="columns"><figure>{chart}</figure>{_facts(rows)}</div>'


def _throughput(metrics: Sequence[StepRecord]) -> str:
    points = [(float(record.step), record.trajectories_per_s) for record in metrics]
    series = Series(
        name="of each step (thick: mean of 5)",
        colour=COLOURS[2],
        points=points,
        smooth=smoothed(points),
    )
    return line_chart(
        [series],
        title="Trajectories per second",
        x_label="optimizer step",
        is_share=False,
        width=480,
        height=220,
    )


def _time_table(summary: Summary) -> str:
    wall = summary.wall_seconds
    warm_start = "warm start" if wall.warm_start else "warm start (shipped)"
    rows = [("set-up (make setup)", wall.setup), (warm_start, wall.warm_start)]
    rows += [(name.replace("_", " "), seconds) for name, seconds in wall.phases.items()]
    rows += [("of which reinforcement learning", wall.rl), ("all", wall.total)]
    return _facts([(name, describe_duration(seconds)) for name, seconds in rows])


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><td>{html_text(name)}</td><td>{html_text(value)}</td></tr>" for name, value in rows
    )
    return f'<table class="facts">{body}</table>'


def _pair(early: EvaluationRecord, late: EvaluationRecord) -> str:
    answers = " or ".join(early.task.answers)
    return (
        f'<div class="pair"><h3>{html_text(early.task.question)}</h3>'
        f'<p class="gold">{html_text(early.family.replace("_", "-"))}; '
        f"answer: {html_text(answers)}</p>"
        f'<div class="columns">{_episode("before", early)}{_episode("after", late)}</div></div>'
    )


def _episode(when: str, episode: EvaluationRecord) -> str:
    verdict = "right" if episode.is_exact else "wrong"
    steps = "".join(describe_step(step) for step in episode.steps)
    ending = episode.outcome.replace("_", " ")
    if episode.answer is not None:
        ending += f": {episode.answer}"
    return (
        f'<div class="episode {verdict}"><h4>{when} training '
        f"<small>weight version {episode.weight_version}</small></h4><ol>{steps}</ol>"
        f'<p class="verdict">{html_text(ending)} ({verdict})</p></div>'
    )
