"""Messages on their way from one process to another through files: whoever is killed, none is lost.

``waiting-00000.frames`` and so on, each a run of entries (little endian):

    entry   number of frames u32 · length of each frame u32 ... · the frames

``waiting.position`` says up to where they were read: number of the file u64, offset u64. A file is
removed when it was read to its end and there is a later one. Together they take a limited room:
beyond it the oldest is removed.
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from common.wire.codec import Buffer

_COUNT = struct.Struct("<I")
_POSITION = struct.Struct("<QQ")
_POSITION_FILE = "waiting.position"
_FILES = 16


def waiting_files(folder: Path) -> dict[int, Path]:
    """The files of a folder by their numbers, in order."""
    found = sorted(folder.glob("waiting-*.frames"))
    return {int(path.stem.removeprefix("waiting-")): path for path in found}


class Spool:
    """Puts messages in; for one process."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        """Begin a file after those that are there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file_bytes = max(1, limit_bytes // _FILES)
        self._number = max(waiting_files(folder), default=-1)
        self._file = -1
        self._begin()

    def append(self, frames: Sequence[Buffer]) -> None:
        """Put a message in; OSError where it cannot be, which leaves none of it."""
        views = [memoryview(frame).cast("B") for frame in frames]
        lengths = struct.pack(f"<{len(views)}I", *map(len, views))
        entry = b"".join([_COUNT.pack(len(views)), lengths, *views])
        try:
            if os.write(self._file, entry) < len(entry):
                raise OSError("the disk takes only a part of it")
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(entry)
        if self._size >= self._file_bytes:
            with suppress(OSError):  # there is no room for another: this one grows on
                self._begin()

    def close(self) -> None:
        """Nothing more is put in."""
        os.close(self._file)

    def remove(self) -> None:
        """All was read, and nobody reads any more: leave nothing behind."""
        for path in (*waiting_files(self._folder).values(), self._folder / _POSITION_FILE):
            path.unlink(missing_ok=True)

    def _begin(self) -> None:
        path = self._folder / f"waiting-{self._number + 1:05d}.frames"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        before, self._file = self._file, os.open(path, flags, 0o600)
        self._number, self._size = self._number + 1, 0
        if before >= 0:
            os.close(before)
        for old in list(waiting_files(self._folder).values())[:-_FILES]:
            old.unlink(missing_ok=True)


class SpoolReader:
    """Takes messages out, in order; for one process, beside the one that puts them in."""

    def __init__(self, folder: Path) -> None:
        """Go on where the reader before was; wait for its end, if it still reads."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._position = os.open(folder / _POSITION_FILE, flags, 0o600)
        fcntl.flock(self._position, fcntl.LOCK_EX)
        known = os.pread(self._position, _POSITION.size, 0)
        self._at = _POSITION.unpack(known) if len(known) == _POSITION.size else (0, 0)

    def __iter__(self) -> Iterator[list[bytes]]:
        """What is there by now; a message counts as read when the next is asked for."""
        files = waiting_files(self._folder)
        for number, path in files.items():
            if number >= self._at[0]:
                yield from self._of(number, path)
            if number < max(files):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep where it was."""
        os.close(self._position)

    def _of(self, number: int, path: Path) -> Iterator[list[bytes]]:
        try:
            file = path.open("rb")
        except FileNotFoundError:  # too old to be kept
            return
        with file:
            file.seek(self._at[1] if number == self._at[0] else 0)
            while (frames := _entry(file)) is not None:
                yield frames
                self._at = number, file.tell()
                os.pwrite(self._position, _POSITION.pack(*self._at), 0)


def _entry(file: BinaryIO) -> list[bytes] | None:
    """The next one, if all of it is there."""
    head = file.read(_COUNT.size)
    if len(head) < _COUNT.size:
        return None
    (count,) = _COUNT.unpack(head)
    lengths = file.read(_COUNT.size * count)
    if len(lengths) < _COUNT.size * count:
        return None
    sizes: tuple[int, ...] = struct.unpack(f"<{count}I", lengths)
    frames = [file.read(size) for size in sizes]
    return frames if sum(map(len, frames)) == sum(sizes) else None
