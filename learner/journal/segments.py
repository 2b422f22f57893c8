"""The segments of a journal on the disk: which there are, what is whole in them, and reading it.

A journal is read once, before anything is appended. A record that was cut off, as by a killed
process, is cut; so is what comes after a damaged record or a gap, which is kept beside it under
``.damaged``. Every such thing is named.
"""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from learner.journal.format import (
    SEGMENT_HEADER_BYTES,
    BrokenRecordError,
    OtherVersionError,
    Record,
    SegmentHeader,
    read_header,
    read_records,
    record_at,
)

log = logging.getLogger(__name__)

DAMAGED = ".damaged"
_NAME = re.compile(r"segment-\d{6,}\.journal")


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment file."""

    path: Path
    header: SegmentHeader


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is."""

    segment: Path
    offset: int
    num_bytes: int
    kind: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """What a journal holds from some record on.

    Attributes:
        places: of the records, in order.
        next_serial: of the record that would come next.
        segments: all that are left.
        notes: what was cut or set aside, for a person.
    """

    places: tuple[Place, ...] = ()
    next_serial: int = 0
    segments: tuple[SegmentFile, ...] = ()
    notes: tuple[str, ...] = ()


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment is kept."""
    return folder / f"segment-{number:06d}.journal"


def segment_files(folder: Path) -> list[Path]:
    """The segment files of a folder, in order."""
    found = [path for path in folder.glob("segment-*.journal") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_number_of)


def begin_journal(
    folder: Path, *, since: int, resume: bool, tell: Callable[[str], None]
) -> Recovered:
    """What a run finds in its folder when it goes on from serial ``since``, or begins.

    Raises:
        InputError: the journal is of another version, or cannot be read or mended.
    """
    try:
        if not resume:
            remove_all(folder)
            return Recovered()
        found = recover(folder, since=since)
    except OSError as error:
        raise InputError(
            f"the journal in '{folder}' cannot be read: {error}; mend what is wrong with it, or "
            "remove the folder to sample again what was accepted since the last checkpoint"
        ) from error
    for note in found.notes:
        log.warning("%s", note)
        tell(note)
    return found


def recover(folder: Path, *, since: int) -> Recovered:
    """Find the records from serial ``since`` on, and leave a journal that can be gone on with.

    Raises:
        InputError: it is of another format.
    """
    segments, notes = _headers(folder)
    begin = [n for n, s in enumerate(segments) if s.header.first_serial <= since]
    if not begin:
        first = segments[0].header.first_serial if segments else since
        notes += _set_aside(
            segments, f"it begins with record {first}, and record {since} was expected"
        )
        return Recovered(next_serial=since, notes=tuple(notes))
    chain = segments[begin[-1] :]
    places: list[Place] = []
    serial = chain[0].header.first_serial
    for n, segment in enumerate(chain):
        if segment.header.first_serial != serial:
            found = segment.header.first_serial
            notes += _set_aside(
                chain[n:], f"it begins with record {found}, and record {serial} was expected"
            )
            chain = chain[:n]
            break
        whole, fault = whole_records(segment.path)
        places += whole[max(0, since - serial) :]
        serial += len(whole)
        if fault is not None:
            notes.append(_cut(segment.path, fault))
            after = f"records before it, in '{segment.path}', are missing"
            notes += _set_aside(chain[n + 1 :], after)
            chain = chain[: n + 1]
            break
    return Recovered(
        places=tuple(places),
        next_serial=max(serial, since),
        segments=(*segments[: begin[-1]], *chain),
        notes=tuple(notes),
    )


def remove_all(folder: Path) -> None:
    """Remove the segments of another attempt; others' files stay."""
    for path in segment_files(folder):
        path.unlink()


def read_place(place: Place) -> Record:
    """The record there.

    Raises:
        BrokenRecordError: it has changed since it was found.
    """
    with place.segment.open("rb") as file:
        file.seek(place.offset)
        return record_at(memoryview(file.read(place.num_bytes)), 0)


def other_version(path: Path, reason: str) -> str:
    """What to do about a segment that another version of l-zero wrote."""
    return (
        f"the journal '{path}' is of another version: {reason}; resume with the version "
        f"that wrote it, or remove the folder '{path.parent}' to sample again what was accepted "
        "since the last checkpoint"
    )


def whole_records(path: Path) -> tuple[list[Place], BrokenRecordError | None]:
    """The whole records of a segment, and what ended them where that was not its end."""
    places: list[Place] = []
    try:
        for offset, record in read_records(path.read_bytes()):
            places.append(Place(path, offset, record.num_bytes, record.kind))
    except BrokenRecordError as error:
        return places, error
    return places, None


def _headers(folder: Path) -> tuple[list[SegmentFile], list[str]]:
    """The segments whose headers can be read; what follows another is set aside."""
    segments: list[SegmentFile] = []
    files = segment_files(folder)
    for n, path in enumerate(files):
        with path.open("rb") as file:
            data = file.read(SEGMENT_HEADER_BYTES)
        try:
            segments.append(SegmentFile(path, read_header(data)))
        except OtherVersionError as error:
            raise InputError(other_version(path, str(error))) from error
        except BrokenRecordError as error:
            if error.is_torn and path == files[-1]:
                path.unlink()  # a process that was killed had just made it
                return segments, []
            rest = [
                SegmentFile(other, SegmentHeader(number=0, first_serial=0)) for other in files[n:]
            ]
            return segments, _set_aside(rest, f"of '{path}': offset 0: {error.reason}")
    return segments, []


def _cut(path: Path, fault: BrokenRecordError) -> str:
    """End a segment before a record that is none; returns what was found."""
    size = path.stat().st_size
    kept = ""
    if not fault.is_torn:
        shutil.copyfile(path, path.with_name(path.name + DAMAGED))
        kept = f"; as it was, it is kept as '{path.name}{DAMAGED}'"
    with path.open("r+b") as file:
        file.truncate(fault.offset)
    return f"the journal '{path}' ends {size - fault.offset} bytes earlier now: {fault}{kept}"


def _set_aside(segments: list[SegmentFile], why: str) -> list[str]:
    """Rename segments that cannot be gone on with."""
    for segment in segments:
        segment.path.rename(segment.path.with_name(segment.path.name + DAMAGED))
    return [f"the journal '{s.path}' is set aside as '{s.path.name}{DAMAGED}': {why}"
            for s in segments]  # fmt: skip


def _number_of(path: Path) -> int:
    return int(path.stem.removeprefix("segment-"))
