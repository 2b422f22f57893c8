"""Whatever happens to the bytes of a journal: what was whole is read, and the rest is named."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from common.errors import InputError
from learner.journal.format import (
    SEGMENT_HEADER_BYTES,
    BrokenRecordError,
    Record,
    SegmentHeader,
    encode_record,
    read_header,
    read_records,
    segment_header,
)
from learner.journal.segments import begin_journal, read_place, recover, segment_path

RECORDS = st.builds(
    Record,
    st.integers(0, 2**32 - 1),
    st.lists(st.binary(max_size=40), max_size=4).map(tuple),
)
SOME = st.lists(RECORDS, max_size=6)


def segment(records: Sequence[Record], *, number: int = 0, first_serial: int = 0) -> bytes:
    header = segment_header(SegmentHeader(number=number, first_serial=first_serial))
    return header + b"".join(b"".join(encode_record(record)) for record in records)


def read(data: bytes) -> tuple[list[Record], BrokenRecordError | None]:
    found = []
    try:
        for _, record in read_records(data):
            found.append(Record(record.kind, tuple(map(bytes, record.frames))))
    except BrokenRecordError as error:
        return found, error
    return found, None


@settings(deadline=None)
@given(SOME)
def test_records_come_back_as_they_were(records: list[Record]) -> None:
    data = segment(records, number=7, first_serial=1 << 40)

    assert read_header(data) == SegmentHeader(number=7, first_serial=1 << 40)
    assert read(data) == (records, None)


@settings(deadline=None)
@given(SOME, st.data())
def test_a_segment_that_was_cut_off_anywhere_ends_with_its_last_whole_record(
    records: list[Record], draw: st.DataObject
) -> None:
    data = segment(records)
    end = draw.draw(st.integers(SEGMENT_HEADER_BYTES, len(data)))

    found, fault = read(data[:end])

    assert found == records[: len(found)]
    whole = len(segment(found))
    assert whole <= end
    assert (fault is None) == (whole == end)
    if fault is not None:
        assert (fault.offset, fault.is_torn) == (whole, True)
        assert len(segment(records[: len(found) + 1])) > end, "no whole record is missing"


@settings(deadline=None)
@given(SOME.filter(len), st.data())
def test_a_flipped_bit_is_found_in_the_record_that_has_it(
    records: list[Record], draw: st.DataObject
) -> None:
    data = bytearray(segment(records))
    place = draw.draw(st.integers(SEGMENT_HEADER_BYTES * 8, len(data) * 8 - 1))
    data[place // 8] ^= 1 << place % 8

    found, fault = read(bytes(data))

    assert fault is not None
    assert found == records[: len(found)]
    assert fault.offset == len(segment(found)) <= place // 8
    assert place // 8 < len(segment(records[: len(found) + 1])), "records before it are read"


@settings(deadline=None)
@given(SOME, st.integers(1, 100))
def test_zeros_after_the_last_record_are_a_torn_end(records: list[Record], count: int) -> None:
    found, fault = read(segment(records) + bytes(count))

    assert found == records
    assert fault is not None
    assert fault.is_torn


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_foreign_bytes_raise_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(BrokenRecordError):
        read_header(data)
    read(segment([]) + data)


# ---- on the disk ---------------------------------------------------------------------------------


def some(count: int, *, first: int = 0) -> list[Record]:
    return [Record(1, (b"record", str(n).encode())) for n in range(first, first + count)]


def lay(folder: Path, *segments: Sequence[Record]) -> None:
    """Segments that follow each other."""
    first = 0
    for number, records in enumerate(segments):
        data = segment(records, number=number, first_serial=first)
        segment_path(folder, number).write_bytes(data)
        first += len(records)


def recovered(folder: Path, *, since: int = 0) -> tuple[list[str], list[str]]:
    """The texts of the records that are there, and the notes."""
    found = recover(folder, since=since)
    assert found.next_serial == since + len(found.places)
    texts = [bytes(read_place(place).frames[1]).decode() for place in found.places]
    return texts, list(found.notes)


def test_records_of_all_segments_come_back_from_a_serial_on(tmp_path: Path) -> None:
    lay(tmp_path, some(3), some(2, first=3), some(0), some(2, first=5))

    for since in range(8):
        texts, notes = recovered(tmp_path, since=since)
        assert texts == [str(n) for n in range(since, 7)]
        assert notes == []


def test_a_torn_end_is_cut_and_named(tmp_path: Path) -> None:
    lay(tmp_path, some(3))
    path = segment_path(tmp_path, 0)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"".join(encode_record(some(1)[0]))[:-1])

    texts, notes = recovered(tmp_path)

    assert texts == ["0", "1", "2"]
    assert path.stat().st_size == whole
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert f"offset {whole}: expected a record of 15 bytes, 14 are left" in notes[0]
    assert recovered(tmp_path) == (texts, [])


def test_after_a_damaged_record_nothing_is_used_and_everything_is_kept(tmp_path: Path) -> None:
    lay(tmp_path, some(3), some(2, first=3))
    path, later = segment_path(tmp_path, 0), segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    start = len(segment(some(1)))
    data[start + 22] ^= 4
    path.write_bytes(data)

    texts, notes = recovered(tmp_path)

    assert texts == ["0"]
    assert f"offset {start}" in notes[0]
    assert "does not match its checksum" in notes[0]
    assert path.with_name(path.name + ".damaged").read_bytes() == data
    assert not later.exists()
    assert later.with_name(later.name + ".damaged").exists()
    assert str(later) in notes[1]
    assert recovered(tmp_path) == (["0"], [])


def test_a_segment_that_is_missing_ends_the_journal(tmp_path: Path) -> None:
    lay(tmp_path, some(1), some(1, first=1), some(1, first=2))
    segment_path(tmp_path, 1).unlink()

    texts, notes = recovered(tmp_path)

    assert texts == ["0"]
    assert "it begins with record 2, and record 1 was expected" in notes[0]


def test_a_journal_that_begins_after_the_checkpoint_is_set_aside(tmp_path: Path) -> None:
    lay(tmp_path, some(2), some(1, first=2))
    segment_path(tmp_path, 0).unlink()

    texts, notes = recovered(tmp_path, since=1)

    assert texts == []
    assert "it begins with record 2, and record 1 was expected" in notes[0]


def test_a_segment_that_had_just_been_made_is_removed(tmp_path: Path) -> None:
    lay(tmp_path, some(2))
    segment_path(tmp_path, 1).write_bytes(b"LZERO")

    assert recovered(tmp_path) == (["0", "1"], [])
    assert not segment_path(tmp_path, 1).exists()


def test_a_journal_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    data = bytearray(segment(some(1)))
    data[8] += 1
    data[SEGMENT_HEADER_BYTES - 4 : SEGMENT_HEADER_BYTES] = zlib.crc32(
        bytes(data[: SEGMENT_HEADER_BYTES - 4])
    ).to_bytes(4, "little")
    segment_path(tmp_path, 0).write_bytes(data)

    with pytest.raises(InputError, match=r"segment-000000.journal' is of another version: it has"):
        recover(tmp_path, since=0)


def test_a_journal_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).mkdir()

    with pytest.raises(InputError, match=r"journal in '.*segment-000000.*; mend .*, or remove the"):
        begin_journal(tmp_path, since=0, resume=True, tell=lambda text: None)


def test_a_run_that_begins_finds_nothing_of_another(tmp_path: Path) -> None:
    lay(tmp_path, some(2))
    (tmp_path / "note.txt").write_text("mine")

    found = begin_journal(tmp_path, since=0, resume=False, tell=lambda text: None)

    assert found.places == ()
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
