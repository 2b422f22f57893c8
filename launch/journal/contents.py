"""What a journal holds, counted: segments, kinds of records, batches, evaluations, drops."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from learner.coordination.changes import (
    KINDS,
    Closed,
    Ended,
    EvaluationBegun,
    EvaluationTaken,
    Restarted,
    Stale,
    Taken,
)
from learner.coordination.recorded import read_change
from learner.journal.segments import Place
from learner.journal.survey import Flaw, Survey

_COUNTED = (Closed, Ended, EvaluationBegun, EvaluationTaken, Restarted, Stale, Taken)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRow:
    """A segment; ``checkpoint`` is the step of the one it was begun at, -1 where at none."""

    file: str
    num_bytes: int
    first_record: int
    records: int
    checkpoint: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRow:
    """The batch of a step: the record, the version it trains, and its trajectories in order."""

    step: int
    version: int
    record: int
    trajectories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRow:
    """A held-out evaluation: the first version it asks, and whether its end is recorded."""

    number: int
    version: int
    record: int
    is_taken: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """All of it.

    Attributes:
        kinds: records by the name of their kind.
        dropped: by reason: leases that ended without a trajectory to train on, and trajectories
            that were too old when a batch was looked for (``stale_in_buffer``).
        groups_dropped: by reason.
        lost_at_restarts: for each time the coordinator began again and lost some, how many leases.
    """

    folder: Path
    segments: tuple[SegmentRow, ...]
    kinds: dict[str, int]
    batches: tuple[BatchRow, ...]
    evaluations: tuple[EvaluationRow, ...]
    dropped: dict[str, int]
    groups_dropped: dict[str, int]
    lost_at_restarts: tuple[int, ...]
    flaws: tuple[Flaw, ...]


def numbered(survey: Survey) -> Iterator[tuple[int, Place]]:
    """All whole records with their numbers."""
    for segment in survey.segments:
        yield from enumerate(segment.places, start=segment.header.first_serial)


def contents_of(survey: Survey) -> Contents:
    """Count what a journal holds; trajectories are not read.

    Raises:
        InputError: a record is none of this version.
    """
    tally = _Tally()
    for serial, place in numbered(survey):
        tally.add(serial, place)
    return Contents(
        folder=survey.folder,
        segments=tuple(
            SegmentRow(
                file=segment.path.name,
                num_bytes=segment.num_bytes,
                first_record=segment.header.first_serial,
                records=len(segment.places),
                checkpoint=segment.header.checkpoint,
            )
            for segment in survey.segments
        ),
        kinds={kind.__name__: tally.kinds[number] for number, kind in KINDS.items()
               if tally.kinds[number]},
        batches=tuple(tally.batches),
        evaluations=tuple(tally.evaluations.values()),
        dropped=dict(tally.dropped),
        groups_dropped=dict(tally.groups_dropped),
        lost_at_restarts=tuple(tally.lost),
        flaws=survey.flaws,
    )  # fmt: skip


class _Tally:
    """Counts records as they come."""

    def __init__(self) -> None:
        self.kinds: Counter[int] = Counter()
        self.batches: list[BatchRow] = []
        self.evaluations: dict[int, EvaluationRow] = {}
        self.dropped: Counter[str] = Counter()
        self.groups_dropped: Counter[str] = Counter()
        self.lost: list[int] = []

    def add(self, serial: int, place: Place) -> None:
        self.kinds[place.kind] += 1
        if KINDS.get(place.kind) not in _COUNTED:
            return
        change = read_change(place)
        if isinstance(change, Taken):
            self.batches.append(
                BatchRow(
                    step=change.version + 1,
                    version=change.version,
                    record=serial,
                    trajectories=change.trajectories,
                )
            )
        elif isinstance(change, EvaluationBegun | EvaluationTaken):
            self._evaluation(serial, change)
        elif isinstance(change, Ended):
            self.dropped[change.reason] += 1
        elif isinstance(change, Closed) and change.dropped_as:
            self.groups_dropped[change.dropped_as] += 1
        elif isinstance(change, Stale):
            self.dropped["stale_in_buffer"] += len(change.trajectories)
        elif isinstance(change, Restarted):
            self.lost.append(len(change.lost))
            self.dropped[change.reason] += len(change.lost)

    def _evaluation(self, serial: int, change: EvaluationBegun | EvaluationTaken) -> None:
        """Of one that began before the journal, only the end is here."""
        known = self.evaluations.get(change.number)
        begun = isinstance(change, EvaluationBegun)
        self.evaluations[change.number] = EvaluationRow(
            number=change.number,
            version=change.version if isinstance(change, EvaluationBegun) else
            (known.version if known else -1),
            record=serial if begun or known is None else known.record,
            is_taken=not begun,
        )  # fmt: skip
