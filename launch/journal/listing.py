"""The records of a journal one by one, each with what it says in a line."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.wire.records import Trajectory
from launch.journal.contents import numbered
from launch.journal.steps import Steps
from learner.coordination.changes import (
    Accepted,
    Change,
    Closed,
    Evaluated,
    Stale,
    Taken,
)
from learner.coordination.recorded import read_change
from learner.journal.segments import Place
from learner.journal.survey import Survey


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordRow:
    """A record: its number, where it is, its kind, and its fields as plain values."""

    record: int
    file: str
    offset: int
    num_bytes: int
    kind: str
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        """For a person, with long lists cut."""
        told = " ".join(f"{name}={_short(value)}" for name, value in self.fields.items())
        return f"{self.record:>8} {self.file}:{self.offset} {self.kind} {told}"


def list_records(survey: Survey, steps: Steps | None = None) -> Iterator[RecordRow]:
    """All records, or those after the batch of the step before ``steps`` up to that of the last.

    Raises:
        InputError: a record is none of this version.
    """
    step = 0
    for serial, place in numbered(survey):
        change = read_change(place)
        # What comes before the first batch belongs to the step of that batch, whichever it is.
        own = change.version + 1 if isinstance(change, Taken) else step + 1
        step = own if isinstance(change, Taken) else step
        if steps is None or own in steps:
            yield _row(serial, place, change)


def _row(serial: int, place: Place, change: Change) -> RecordRow:
    return RecordRow(
        record=serial,
        file=place.segment.name,
        offset=place.offset,
        num_bytes=place.num_bytes,
        kind=type(change).__name__,
        fields=_fields(change),
    )


def _fields(change: Change) -> Mapping[str, Any]:
    if isinstance(change, Accepted | Evaluated):
        return _of_trajectory(change.trajectory)
    values = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
    if isinstance(change, Stale | Taken):
        return {"step": change.version + 1, **values}
    if isinstance(change, Closed) and not change.dropped_as:
        del values["dropped_as"]
    return values


def _of_trajectory(trajectory: Trajectory) -> Mapping[str, Any]:
    return {
        "trajectory_id": trajectory.trajectory_id,
        "task_id": trajectory.task_id,
        "outcome": str(trajectory.outcome),
        "reward": trajectory.total_reward,
        "steps": len(trajectory.steps),
        "tokens": trajectory.tokens_generated,
        "oldest_version": trajectory.oldest_version,
        "newest_version": trajectory.newest_version,
    }


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)}:{value[0]}..{value[-1]}" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value)
