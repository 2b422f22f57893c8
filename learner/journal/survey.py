"""Looks at a journal and changes nothing: what is whole in it, and what is torn, damaged, missing.

``learner.journal.segments.recover`` mends what a run goes on with; here a person wants to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.errors import InputError
from learner.journal.format import (
    SEGMENT_HEADER_BYTES,
    BrokenRecordError,
    OtherVersionError,
    SegmentHeader,
    read_header,
)
from learner.journal.segments import Place, other_version, segment_files, whole_records


class FlawKind(StrEnum):
    """What can be wrong with a journal."""

    TORN = "torn"
    """The last record is not whole: its writer was killed, or is writing it now. Nothing is lost
    that was acknowledged, and whoever goes on cuts it off."""
    DAMAGED = "damaged"
    """Bytes are not as they were written; what follows in the segment cannot be read."""
    MISSING = "missing"
    """Records between two segments are not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """Something that is wrong: where, from which byte of the file on, and why it is thought so."""

    kind: FlawKind
    path: Path
    offset: int
    reason: str

    def __str__(self) -> str:
        """For a person."""
        return f"{self.kind}: '{self.path}' offset {self.offset}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SurveyedSegment:
    """A segment whose header can be read, and its whole records."""

    path: Path
    header: SegmentHeader
    num_bytes: int
    places: tuple[Place, ...]

    @property
    def next_serial(self) -> int:
        """Of the record that would follow its last whole one."""
        return self.header.first_serial + len(self.places)


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """All of a journal, in order."""

    folder: Path
    segments: tuple[SurveyedSegment, ...]
    flaws: tuple[Flaw, ...]

    @property
    def num_records(self) -> int:
        """Whole records."""
        return sum(len(segment.places) for segment in self.segments)

    @property
    def num_bytes(self) -> int:
        """Size of the segments."""
        return sum(segment.num_bytes for segment in self.segments)

    def since(self, serial: int) -> tuple[Place, ...]:
        """The records from ``serial`` on, up to the first that is not there; none without it."""
        found: list[Place] = []
        for segment in self.segments:
            at = serial + len(found) - segment.header.first_serial
            if found and at:
                break
            if at >= 0:
                found += segment.places[at:]
        return tuple(found)


def survey(folder: Path) -> Survey:
    """Read a whole journal, checksums and all.

    Raises:
        InputError: there is none, it cannot be read, or it is of another version.
    """
    try:
        files = segment_files(folder)
        if not files:
            raise InputError(
                f"there is no journal in '{folder}': expected files segment-000000.journal and so "
                "on; a run keeps those that its checkpoints need, with run.keep_journal all"
            )
        return _survey(folder, files)
    except OSError as error:
        raise InputError(f"the journal in '{folder}' cannot be read: {error}") from error


def _survey(folder: Path, files: Sequence[Path]) -> Survey:
    segments: list[SurveyedSegment] = []
    flaws: list[Flaw] = []
    expected: int | None = None
    for path in files:
        header = _header(path, flaws, is_last=path == files[-1])
        if header is None:
            expected = None
            continue
        if expected not in (None, header.first_serial):
            flaws.append(_gap(path, header.first_serial, expected or 0))
        places, fault = whole_records(path)
        segment = SurveyedSegment(
            path=path, header=header, num_bytes=path.stat().st_size, places=tuple(places)
        )
        segments.append(segment)
        expected = segment.next_serial
        if fault is not None:
            flaws.append(_flaw(path, fault, is_last=path == files[-1]))
            expected = None
    return Survey(folder=folder, segments=tuple(segments), flaws=tuple(flaws))


def _header(path: Path, flaws: list[Flaw], *, is_last: bool) -> SegmentHeader | None:
    """The header of a segment; what is wrong with it goes to ``flaws``."""
    with path.open("rb") as file:
        data = file.read(SEGMENT_HEADER_BYTES)
    try:
        return read_header(data)
    except OtherVersionError as error:
        raise InputError(other_version(path, str(error))) from error
    except BrokenRecordError as error:
        flaws.append(_flaw(path, error, is_last=is_last))
        return None


def _flaw(path: Path, fault: BrokenRecordError, *, is_last: bool) -> Flaw:
    """Only the last segment can end in the middle of a record by itself."""
    kind = FlawKind.TORN if fault.is_torn and is_last else FlawKind.DAMAGED
    return Flaw(kind=kind, path=path, offset=fault.offset, reason=fault.reason)


def _gap(path: Path, found: int, expected: int) -> Flaw:
    if found < expected:
        reason = f"it begins with record {found}, and record {expected} was expected"
        return Flaw(kind=FlawKind.DAMAGED, path=path, offset=0, reason=reason)
    reason = f"it begins with record {found}; records {expected} to {found - 1} are not there"
    return Flaw(kind=FlawKind.MISSING, path=path, offset=0, reason=reason)
