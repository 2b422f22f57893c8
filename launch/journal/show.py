"""A journal on a terminal, and as JSON."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.journal.check import Checked
from launch.journal.contents import BatchRow, Contents
from launch.journal.cut import CutPiece
from launch.journal.listing import RecordRow
from launch.journal.steps import Steps
from launch.screen import cell, say
from learner.journal.survey import Flaw

FORMAT = 1
"""Of the JSON; a number is added when a field changes its meaning or goes."""
_MIB = 1 << 20


def within(contents: Contents, steps: Steps | None) -> Contents:
    """The same with the batches of some steps only."""
    if steps is None:
        return contents
    kept = tuple(batch for batch in contents.batches if batch.step in steps)
    return dataclasses.replace(contents, batches=kept)


def contents_as_json(contents: Contents, records: Iterable[RecordRow] | None) -> dict[str, Any]:
    """What ``show --json`` prints."""
    told = dataclasses.asdict(contents)
    told |= {"format": FORMAT, "folder": str(contents.folder)}
    told["flaws"] = [flaw_as_json(flaw) for flaw in contents.flaws]
    if records is not None:
        told["records"] = [dataclasses.asdict(row) for row in records]
    return told


def checked_as_json(checked: Checked) -> dict[str, Any]:
    """What ``check --json`` prints."""
    return {
        "format": FORMAT,
        "folder": str(checked.folder),
        "is_whole": checked.is_whole,
        "segments": checked.segments,
        "records": checked.records,
        "num_bytes": checked.num_bytes,
        "steps": list(checked.steps),
        "flaws": [flaw_as_json(flaw) for flaw in checked.flaws],
        "notes": list(checked.notes),
    }


def piece_as_json(piece: CutPiece) -> dict[str, Any]:
    """What ``cut --json`` prints."""
    return {
        "format": FORMAT,
        "out": str(piece.out),
        "first_step": piece.steps.first,
        "last_step": piece.steps.last,
        "checkpoint": piece.start.step,
        "records": piece.records,
        "num_bytes": piece.num_bytes,
        "also_needed": piece.also_needed,
    }


def flaw_as_json(flaw: Flaw) -> dict[str, Any]:
    """A flaw as plain values."""
    return dataclasses.asdict(flaw) | {"path": str(flaw.path)}


def print_contents(contents: Contents, console: Console) -> None:
    """Segments, counts and batches."""
    say(console, f"journal {contents.folder}")
    console.print(_segments(contents))
    counts = (
        ("records", contents.kinds),
        ("dropped", contents.dropped),
        ("groups dropped", contents.groups_dropped),
    )
    for title, counted in counts:
        if counted:
            say(console, f"{title}: {_listed(counted)}")
    if contents.lost_at_restarts:
        lost = ", ".join(map(str, contents.lost_at_restarts))
        say(console, f"begun again with leases lost: {lost}")
    for evaluation in contents.evaluations:
        ended = "taken" if evaluation.is_taken else "under way at the end"
        say(console, f"evaluation {evaluation.number} from version {evaluation.version}: {ended}")
    if contents.batches:
        console.print(_batches(contents.batches))
    for flaw in contents.flaws:
        say(console, str(flaw))


def print_checked(checked: Checked, console: Console) -> None:
    """A verdict, then what is wrong."""
    first, last = checked.steps
    steps = f"steps {Steps(first, last)}" if last else "no batch"
    said = f"{checked.segments} segments, {checked.records} records, {_mib(checked.num_bytes)}"
    if not checked.is_whole:
        verdict = "damaged"
    else:
        verdict = "whole, with a torn end" if checked.flaws else "whole"
    say(console, f"{verdict}: {checked.folder}: {said}, {steps}")
    for line in (*map(str, checked.flaws), *(f"note: {note}" for note in checked.notes)):
        say(console, line)


def print_piece(piece: CutPiece, console: Console, run: Path) -> None:
    """What was written, and how it is played."""
    said = f"from {piece.start} on: {piece.records} records, {_mib(piece.num_bytes)}"
    say(console, f"wrote steps {piece.steps} of {run} to {piece.out}, {said}")
    say(console, f"a replay needs also: {piece.also_needed}")
    say(console, "whoever gets it reads whole trajectories; gold answers are not among them")
    say(console, f"then: lzero replay {piece.out} --steps {piece.steps}")


def _segments(contents: Contents) -> Table:
    table = Table("segment", box=None)
    for title in ("MiB", "first record", "records", "begun at checkpoint"):
        table.add_column(title, justify="right")
    for row in contents.segments:
        step = "" if row.checkpoint < 0 else str(row.checkpoint)
        numbers = f"{row.num_bytes / _MIB:.2f}", str(row.first_record), str(row.records), step
        table.add_row(cell(row.file), *numbers)
    return table


def _batches(batches: Iterable[BatchRow]) -> Table:
    table = Table(box=None)
    for title in ("step", "trains version", "record", "trajectories"):
        table.add_column(title, justify="right")
    table.add_column("first ... last")
    for row in batches:
        ids = row.trajectories
        ends = f"{ids[0]} ... {ids[-1]}" if ids else ""
        table.add_row(
            str(row.step), str(row.version), str(row.record), str(len(ids)), cell(ends)
        )  # fmt: skip
    return table


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items())


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:.2f} MiB"
