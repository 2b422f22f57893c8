"""``lzero status`` and ``lzero why`` in words."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from common.run_status import MemberStatus, RunStatus
from common.waits.catalogue import Part
from common.waits.graph import Chain
from common.waits.records import WaitReport
from common.waits.sentences import describe_wait, seconds_in_words
from launch.screen import cell
from launch.watch.seen import SeenRun

MIB = 1 << 20
_KINDS = 3
"""Of waits that are named for a member."""
_RESTARTS = 5


def page(seen: SeenRun) -> RenderableType:
    """All that ``lzero status`` shows."""
    lines: list[RenderableType] = [cell(_head(seen))]
    if seen.status is not None:
        lines += map(cell, _lines(seen, seen.status))
        lines.append(_members(seen.status))
    lines += [cell(f"restarted: {text}") for text in seen.restarts[-_RESTARTS:]]
    lines += [cell(f"alert: {text}") for text in seen.alerts]
    return Group(*lines, cell(f"why: {seen.sentence()}"))


def _head(seen: SeenRun) -> str:
    state = seen.state.status if seen.is_on or seen.state.status != "running" else "killed"
    phase = f" ({seen.state.phase})" if seen.is_on and seen.state.phase else ""
    attempts = f", attempt {seen.state.attempts}" if seen.state.attempts > 1 else ""
    done = seen.last.step if seen.last is not None else 0
    step = f", step {done} of {seen.status.steps}" if seen.status else ""
    return f"{seen.name}: {state}{phase}{step}{attempts}"


def _lines(seen: SeenRun, status: RunStatus) -> Iterator[str]:
    age = seconds_in_words(max(0.0, seen.now - status.written_at))
    yield f"as the learner knew it {age} ago{', at its end' if status.has_ended else ''}:"
    flow, counts = status.flow, status.trajectories
    yield (
        f"throughput: {flow.trajectories_per_s:.1f} trajectories/s, "
        f"{flow.tokens_per_s:.0f} tokens/s over the last {flow.seconds:.0f} s"
    )
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items())
    yield (
        f"trajectories: {counts.started} started, {counts.finished} finished, {counts.trained} "
        f"trained, {counts.open} open, dropped: {dropped or 'none'}"
    )
    yield (
        f"next batch: {status.ready} of {status.wanted} groups ready, {status.open} open, "
        f"{status.buffered_bytes / MIB:.1f} MiB kept"
    )
    staleness = ""
    if seen.last is not None and (actions := sum(seen.last.staleness.values())):
        lags = {int(lag): count for lag, count in seen.last.staleness.items()}
        mean = sum(lag * count for lag, count in lags.items()) / actions
        staleness = f"staleness of the last step: mean {mean:.1f}, most {max(lags)}; "
    yield (
        f"weights: version {status.version} acknowledged; {staleness}sampling "
        f"{status.depth:.2f} batches ahead (at most {status.max_staleness}); servers bear "
        f"{status.credit:.0%} of the episodes"
    )
    yield f"learner: {_waits(status.learner)}"


def _members(status: RunStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for member in status.members:
        heard = "never" if member.heard_s < 0 else f"{seconds_in_words(member.heard_s)} ago"
        row = (str(member.node), member.state, _holds(member), f"heard {heard}")
        table.add_row(*map(cell, (*row, member.cause or _waits(member.report))))
    if status.others:
        table.add_row(cell(f"and {status.others} more"))
    return table


def _holds(member: MemberStatus) -> str:
    if member.node.part is Part.ACTOR:
        return f"{member.leases} leases"
    return "no weights" if member.version < 0 else f"version {member.version}"


def _waits(report: WaitReport) -> str:
    """``31 x generation (longest 1.2 s), loop lag 0.1 s``."""
    longest: dict[str, float] = {}
    for wait in report.waits:
        longest[wait.kind] = max(longest.get(wait.kind, 0.0), wait.seconds)
    kinds = sorted(report.counts.items(), key=lambda item: -item[1])[:_KINDS]
    parts = [
        f"{count} x {kind}"
        + (f" (longest {seconds_in_words(longest[kind])})" if kind in longest else "")
        for kind, count in kinds
    ]
    parts += [f"{name} {count}" for name, count in report.queues.items() if count]
    parts += [f"event loop stood still for {report.lag_s:.1f} s"] if report.lag_s > 0.1 else []
    return ", ".join(parts) or "waits for nothing"


def chain_lines(chain: Chain) -> list[str]:
    """The waits of a chain, one a line."""
    return [f"  {number}. {describe_wait(wait)}" for number, wait in enumerate(chain.waits, 1)]


def why_as_json(seen: SeenRun) -> dict[str, Any]:
    """What ``lzero why --json`` prints."""
    chain = seen.chain() if seen.is_on else None
    return {
        "name": seen.name,
        "is_on": seen.is_on,
        "sentence": seen.sentence(),
        "chain": [] if chain is None else [dataclasses.asdict(wait) for wait in chain.waits],
        "root": None if chain is None else dataclasses.asdict(chain.root),
        "ending": None if chain is None else chain.ending.value,
    }
