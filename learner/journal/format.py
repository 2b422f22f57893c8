"""The bytes of the journal: segment files of records, each with its length, kind and checksums.

Pure. A segment begins with a header, and its records follow without gaps (little endian; the
checksums are CRC-32 as in RFC 1952):

    segment   magic 8s · format u16 · schema u16 · number u32 · first serial u64 · checkpoint i32
              · check of these 28 u32
    record    length u32 · kind u32 · frames u32 · check of the body u32 · check of these 16 u32
    body      length of each frame u32 ... · the frames

What the frames mean is for others to say (``learner.coordination.changes``); ``schema`` is that of
the wire (``common.wire.codec``), whose frames some of them hold. Records are numbered
through all segments of a run: the n-th of a segment, from 0, has its first serial + n.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.wire.codec import SCHEMA_VERSION

FORMAT = 1
"""Raised whenever an older program could not read a newer journal or the reverse."""

MAGIC = b"LZEROJNL"
NO_CHECKPOINT = -1
MOST_BYTES = 1 << 30
"""Of the body of a record; a message of an actor has less."""

_SEGMENT = struct.Struct("<8sHHIQiI")
_RECORD = struct.Struct("<IIIII")
SEGMENT_HEADER_BYTES = _SEGMENT.size
RECORD_HEADER_BYTES = _RECORD.size

Frame = bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentHeader:
    """What the first bytes of a segment say.

    Attributes:
        number: place among the segments of the run; also in the file's name.
        first_serial: number of its first record among those of the run.
        checkpoint: the step of the checkpoint that was being made when the segment was begun:
            it does not need the segments before; NO_CHECKPOINT where none was.
    """

    number: int
    first_serial: int
    checkpoint: int = NO_CHECKPOINT


@dataclass(frozen=True, slots=True)
class Record:
    """One entry: a kind, and frames that are its own business."""

    kind: int
    frames: tuple[Frame, ...]

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        lengths = sum([memoryview(frame).nbytes for frame in self.frames])
        return RECORD_HEADER_BYTES + 4 * len(self.frames) + lengths


class BrokenRecordError(Exception):
    """The bytes at ``offset`` are no record, and why; ``is_torn`` where the file just ends there.

    Everything before ``offset`` is whole.
    """

    def __init__(self, offset: int, reason: str, *, is_torn: bool) -> None:
        """``offset`` counts from the start of the file."""
        super().__init__(f"offset {offset}: {reason}")
        self.offset, self.reason, self.is_torn = offset, reason, is_torn


class OtherVersionError(Exception):
    """A segment that another version of l-zero wrote; the text says which numbers differ."""


def segment_header(header: SegmentHeader) -> bytes:
    """The bytes a segment begins with."""
    return _with_check(
        _SEGMENT,
        MAGIC,
        FORMAT,
        SCHEMA_VERSION,
        header.number,
        header.first_serial,
        header.checkpoint,
    )


def read_header(data: Frame) -> SegmentHeader:
    """What ``segment_header`` wrote.

    Raises:
        BrokenRecordError: it is none.
        OtherVersionError: another version of l-zero wrote it.
    """
    if len(data) < _SEGMENT.size:
        text = f"expected a header of {_SEGMENT.size} bytes, the file has {len(data)}"
        raise BrokenRecordError(0, text, is_torn=True)
    magic, version, schema, number, first_serial, checkpoint, check = _SEGMENT.unpack_from(data)
    if magic != MAGIC or check != zlib.crc32(data[: _SEGMENT.size - 4]):
        raise BrokenRecordError(0, "expected the header of a segment", is_torn=not any(data))
    if (version, schema) != (FORMAT, SCHEMA_VERSION):
        raise OtherVersionError(
            f"it has format {version} and wire schema {schema}, this version of l-zero reads "
            f"{FORMAT} and {SCHEMA_VERSION}"
        )
    return SegmentHeader(number=number, first_serial=first_serial, checkpoint=checkpoint)


def encode_record(record: Record) -> list[Frame]:
    """The buffers to write, one after the other."""
    frames = [memoryview(frame).cast("B") for frame in record.frames]
    sizes = [len(frame) for frame in frames]
    lengths = struct.pack(f"<{len(frames)}I", *sizes)
    check = zlib.crc32(lengths)
    for frame in frames:
        check = zlib.crc32(frame, check)
    size = len(lengths) + sum(sizes)
    return [_with_check(_RECORD, size, record.kind, len(frames), check), lengths, *frames]


def read_records(data: Frame) -> Iterator[tuple[int, Record]]:
    """The records of a whole segment with their offsets; frames are views into ``data``.

    Raises:
        BrokenRecordError: after the last whole record, where more bytes follow.
    """
    view = memoryview(data)
    at = _SEGMENT.size
    while at < len(view):
        record = record_at(view, at)
        yield at, record
        at += record.num_bytes


def record_at(view: memoryview, at: int) -> Record:
    """The record at an offset.

    Raises:
        BrokenRecordError: there is none.
    """
    head = view[at : at + _RECORD.size]
    if len(head) < _RECORD.size:
        text = f"expected a record's header of {_RECORD.size} bytes, {len(head)} are left"
        raise BrokenRecordError(at, text, is_torn=True)
    length, kind, count, check, own_check = _RECORD.unpack(head)
    if own_check != zlib.crc32(head[:-4]) or not 4 * count <= length <= MOST_BYTES:
        text = "the header of a record does not match its checksum"
        raise BrokenRecordError(at, text, is_torn=not any(view[at:]))
    body = view[at + _RECORD.size : at + _RECORD.size + length]
    if len(body) < length:
        text = f"expected a record of {length} bytes, {len(body)} are left"
        raise BrokenRecordError(at, text, is_torn=True)
    if zlib.crc32(body) != check:
        text = f"a record of {length} bytes does not match its checksum"
        raise BrokenRecordError(at, text, is_torn=False)
    return Record(kind, _frames(body, count, at))


def _frames(body: memoryview, count: int, at: int) -> tuple[memoryview, ...]:
    lengths: Sequence[int] = struct.unpack_from(f"<{count}I", body)
    if 4 * count + sum(lengths) != len(body):
        text = "the frames of a record are not as long as the record"
        raise BrokenRecordError(at, text, is_torn=False)
    frames, start = [], 4 * count
    for length in lengths:
        frames.append(body[start : start + length])
        start += length
    return tuple(frames)


def _with_check(layout: struct.Struct, *values: object) -> bytes:
    """The values, and a checksum of them in the last field."""
    packed = layout.pack(*values, 0)[:-4]
    return packed + struct.pack("<I", zlib.crc32(packed))
