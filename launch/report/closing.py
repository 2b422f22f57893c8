"""What is printed at the end of a run: the held-out scores, and the numbers behind them."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from common.telemetry.process_totals import StalenessTotals
from launch.report.summary import BeforeAfter, Summary
from launch.report.three_points import three_points_tables
from launch.report.training_view import describe_duration
from launch.run.folder import RunFolder
from launch.screen import cell, say


def print_summary(summary: Summary, folder: RunFolder, console: Console) -> None:
    """The short table at the end of a run."""
    families = families_of(summary)
    if families:
        heading = cell(f"L-Zero run '{summary.name}': held-out success")
        table = Table(title=heading, title_justify="left")
        table.add_column("")
        for family in families:
            table.add_column(cell(family).append("\nbefore"), justify="right")
            table.add_column("\nafter", justify="right")
            table.add_column("\nn", justify="right", style="dim")
        for title, scores in score_tables(summary):
            table.add_row(title, *(text for f in families for text in _cells(scores.get(f))))
        console.print(table)
    for table in three_points_tables(summary):
        console.print(table)
    for name, value in facts(summary):
        say(console, f"{name:<18} {value}")
    for alert in summary.alerts:
        say(console, f"{'alert':<18} {alert}")
    for name, path in (("summary", folder.summary), ("report", folder.report)):
        say(console, f"{name:<18} {path}")


def families_of(summary: Summary) -> list[str]:
    """The families of all questions asked, those of the first suites first."""
    return list(dict.fromkeys(family for _, scores in score_tables(summary) for family in scores))


def score_tables(summary: Summary) -> list[tuple[str, Mapping[str, BeforeAfter]]]:
    """The held-out scores that were measured, as (title, family to score)."""
    tables: tuple[tuple[str, Mapping[str, BeforeAfter]], ...] = (
        ("sampled, exact", summary.heldout),
        ("sampled, contained", summary.heldout_lenient),
        ("greedy, exact", summary.heldout_greedy),
        ("greedy, contained", summary.heldout_greedy_lenient),
        ("held-out wordings", summary.heldout_wordings),
        ("unseen names", summary.unseen_names),
        ("search switched off", summary.search_disabled),
        *((f"{name}, exact", scores) for name, scores in summary.suites.items()),
    )
    return [(title, scores) for title, scores in tables if scores]


def facts(summary: Summary) -> list[tuple[str, str]]:
    """What is printed below the scores, as (name, value)."""
    counts, stale = summary.trajectories, summary.staleness
    mismatch, wall = summary.logprob_mismatch, summary.wall_seconds
    sandbox, learner, asked = summary.sandbox, summary.learner, summary.policy_server
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items()) or "none"
    kernels = f"{sandbox.kernels_started} kernels, {sandbox.cells_executed} cells"
    requests = f"{asked.requests} times for {asked.tokens_generated} tokens"
    return [
        ("trajectories", f"{counts.trained} trained of {counts.started}; dropped: {dropped}"),
        ("staleness", f"mean {stale.mean:.2f}, max {stale.max} ({_limits(stale)})"),
        ("log-prob mismatch", f"mean {mismatch.mean_abs:.1e}, max {mismatch.max_abs:.1e}"),
        ("learner", f"{learner.ranks} rank(s), waited {learner.idle_fraction:.0%} of the time"),
        ("actors", f"{len(summary.actors)}, which asked {requests}"),
        ("sandbox", f"{kernels} ({sandbox.launcher})"),
        ("wall time", f"RL {describe_duration(wall.rl)}, all {describe_duration(wall.total)}"),
    ]


def _limits(stale: StalenessTotals) -> str:
    limits = f"bound {stale.bound}, depth {stale.depth:.2f}"
    return limits if stale.credit >= 1 else f"{limits}, credit {stale.credit:.0%}"


def _cells(pair: BeforeAfter | None) -> tuple[str, str, str]:
    if pair is None:
        return ("", "", "")
    return (_percent(pair.before), _percent(pair.after), str(pair.n))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
