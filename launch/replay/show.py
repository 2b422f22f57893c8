"""A replay on a terminal, and as JSON."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from common.telemetry.step_record import StepRecord
from launch.replay.outcome import ReplayOutcome, VariantOutcome, clipped, masked, told_compared
from launch.screen import cell, say

FORMAT = 1
"""Of the JSON; a number is added when a field changes its meaning or goes."""
SHOWN = 10
"""Differences that a terminal shows, of each kind of them."""
_MOST_ROWS = 60


def outcome_as_json(outcome: ReplayOutcome) -> dict[str, Any]:
    """What ``--json`` prints and ``replay.json`` holds."""
    return {
        "format": FORMAT,
        "run": str(outcome.run),
        "identical": outcome.is_identical,
        "damage": outcome.damage,
        "from": outcome.start,
        "first_step": outcome.steps.first,
        "last_step": outcome.steps.last,
        "ranks": outcome.ranks,
        "ranks_of_run": outcome.ranks_of_run,
        "compared": list(told_compared(outcome)),
        "differences": [dataclasses.asdict(one) for one in outcome.differences],
        "settings": [_variant(variant) for variant in outcome.variants],
    }


def _variant(variant: VariantOutcome) -> dict[str, Any]:
    trial = variant.trial
    return {
        "label": variant.label,
        "name": variant.name,
        "measures": variant.measures,
        "final_logprobs": dataclasses.asdict(trial.logprobs),
        "weights": {
            "tensors": trial.weights.tensors,
            "differing": list(trial.weights.differing),
        },
        "steps": [_step(record) for record in trial.records],
    }


def _step(record: StepRecord) -> dict[str, Any]:
    return {
        "step": record.step,
        "loss": record.loss,
        "grad_norm": record.grad_norm,
        "effective_sample_share": record.effective_sample_share,
        "clipped_share": clipped(record),
        "masked_share": masked(record),
        "masked": record.masked,
        "learning_rate": record.learning_rate,
        "skipped": record.skipped,
    }


def print_outcome(outcome: ReplayOutcome, console: Console) -> None:
    """The verdict, then what differs, then settings beside each other."""
    if outcome.damage:
        say(console, f"different: {outcome.damage}")
        return
    told = f"steps {outcome.steps} of {outcome.run}, from {outcome.start}"
    say(console, f"{'identical' if outcome.is_identical else 'different'}: {told}")
    if outcome.ranks != outcome.ranks_of_run:
        say(
            console,
            f"with {outcome.ranks} ranks, and the run had {outcome.ranks_of_run}: sums are added "
            "up in another order, so only the order of trajectories and what is counted of them "
            "can be compared",
        )
    say(console, f"compared: {'; '.join(told_compared(outcome)) or 'nothing was recorded'}")
    for line in _told(outcome):
        say(console, line)
    if outcome.others:
        console.print(_measures(outcome))
        console.print(_steps(outcome))


def _told(outcome: ReplayOutcome) -> Iterator[str]:
    found = outcome.differences
    yield from map(str, found[:SHOWN])
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN} more differences (--json has all)"
    for variant in outcome.others:
        weights = variant.trial.weights
        if not weights.differing:
            yield f"{variant.label}: {variant.name}: the weights are the same, bit by bit"
            continue
        first = next(_differing_steps(outcome.variants[0], variant), "none")
        count = f"{len(weights.differing)} of {weights.tensors} tensors"
        yield (
            f"{variant.label}: {variant.name}: {count} differ after step {weights.step}, the "
            f"first of them {weights.differing[0]}; first step with another loss or gradient: "
            f"{first}"
        )


def _differing_steps(one: VariantOutcome, other: VariantOutcome) -> Iterator[int]:
    for mine, theirs in zip(one.trial.records, other.trial.records, strict=True):
        if (mine.loss, mine.grad_norm) != (theirs.loss, theirs.grad_norm):
            yield mine.step


def _measures(outcome: ReplayOutcome) -> Table:
    table = Table(box=None)
    table.add_column("")
    for variant in outcome.variants:
        table.add_column(cell(variant.label), justify="right")
    columns = [variant.measures for variant in outcome.variants]
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:.6g}" for column in columns))
    return table


def _steps(outcome: ReplayOutcome) -> Table:
    """As many of the last steps as a terminal has room for."""
    table = Table(box=None)
    for title in ("step", "settings", "loss", "gradient", "ESS", "clipped", "masked"):
        table.add_column(title, justify="left" if title == "settings" else "right")
    shown = max(1, _MOST_ROWS // len(outcome.variants))
    rows = list(zip(*(variant.trial.records for variant in outcome.variants), strict=True))
    for records in rows[-shown:]:
        for variant, record in zip(outcome.variants, records, strict=True):
            numbers = (record.loss, record.grad_norm, record.effective_sample_share)
            shares = (clipped(record), masked(record))
            table.add_row(
                str(record.step), cell(variant.label), *(f"{x:.5g}" for x in numbers),
                *(f"{x:.1%}" for x in shares),
            )  # fmt: skip
    return table
