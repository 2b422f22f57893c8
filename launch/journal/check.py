"""Whether a journal is whole: checksums, order, readable records, and all that checkpoints need."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from launch.journal.contents import numbered
from launch.journal.place import JournalPlace
from learner.coordination.changes import Taken
from learner.coordination.recorded import read_change
from learner.journal.segments import DAMAGED
from learner.journal.survey import Flaw, FlawKind, Survey, survey


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What was found.

    Attributes:
        steps: the first and the last whose batch is there; 0 without any.
        flaws: everything that is wrong.
        notes: what is not wrong, and may be good to know.
    """

    folder: Path
    records: int
    num_bytes: int
    segments: int
    steps: tuple[int, int]
    flaws: tuple[Flaw, ...]
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Nothing is damaged or missing; a torn end is how a journal ends that is written to."""
        return all(flaw.kind is FlawKind.TORN for flaw in self.flaws)


def check_journal(place: JournalPlace) -> Checked:
    """Read all of a journal, trajectories and all.

    Raises:
        InputError: there is none, or it is of another version.
    """
    found = survey(place.folder)
    numbers, unreadable = _read(found)
    flaws = [*found.flaws, *unreadable, *_lacking(place, found)]
    is_damaged = any(flaw.kind is FlawKind.DAMAGED for flaw in flaws)
    if not is_damaged and (late := _lacking_steps(place, found, max(numbers, default=0))):
        flaws.append(late)
    return Checked(
        folder=place.folder,
        records=found.num_records,
        num_bytes=found.num_bytes,
        segments=len(found.segments),
        steps=(min(numbers, default=0), max(numbers, default=0)),
        flaws=tuple(flaws),
        notes=tuple(_notes(place, found)),
    )


def _read(found: Survey) -> tuple[list[int], list[Flaw]]:
    """The steps whose batches are there, and records of a right checksum that say nothing."""
    steps, flaws = [], []
    for _, place in numbered(found):
        try:
            change = read_change(place)
        except InputError as error:
            reason = str(error).partition(f"offset {place.offset}: ")[2]
            flaws.append(
                Flaw(kind=FlawKind.DAMAGED, path=place.segment, offset=place.offset, reason=reason)
            )
            continue
        if isinstance(change, Taken):
            steps.append(change.version + 1)
    return steps, flaws


def _lacking(place: JournalPlace, found: Survey) -> Iterator[Flaw]:
    """Records before the first that are needed."""
    if not found.segments:
        return
    first = found.segments[0]
    begins = first.header.first_serial
    needed = {position: f"checkpoint step-{step:06d} goes on from"
              for step, position in place.positions().items()}  # fmt: skip
    if place.keeps_all and (not needed or min(needed) > 0) and place.run.state_file.is_file():
        needed[0] = "run.keep_journal = true keeps"
    for position in sorted(needed)[:1]:
        if position < begins:
            reason = (
                f"it begins with record {begins}; records {position} to {begins - 1}, which "
                f"{needed[position]}, are not there"
            )
            yield Flaw(kind=FlawKind.MISSING, path=first.path, offset=0, reason=reason)


def _lacking_steps(place: JournalPlace, found: Survey, last: int) -> Flaw | None:
    """A step is trained only when its batch is on the disk: so what was trained has to be here."""
    trained = _last_step(place.run.batches)
    if not found.segments or trained <= last:
        return None
    path = found.segments[-1].path
    held = f"the last batch here is that of step {last}" if last else "no batch is here"
    reason = f"{held}, but {place.run.batches.name} of the run has step {trained}"
    # The checkpoint of the last step needs nothing that came before it.
    if trained in place.positions() and not place.keeps_all:
        return None
    return Flaw(
        kind=FlawKind.MISSING, path=path, offset=found.segments[-1].num_bytes, reason=reason
    )


def _last_step(batches: Path) -> int:
    """The last step of the file; 0 where it has none, and for a line that is being written."""
    lines = batches.read_text(encoding="utf-8").splitlines() if batches.is_file() else []
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, LookupError, TypeError):
            continue
    return 0


def _notes(place: JournalPlace, found: Survey) -> Iterator[str]:
    if found.segments and (first := found.segments[0].header.first_serial):
        yield (
            f"it begins with record {first}: what no kept checkpoint needs is removed, unless "
            "run.keep_journal is true"
        )
    for path in sorted(place.folder.glob(f"*{DAMAGED}")):
        yield f"'{path}' was set aside as damaged when the run went on"
