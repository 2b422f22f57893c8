"""Sizes and checksums of files, and writing them so that they are on the disk itself."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """Size and BLAKE2b checksum (256 bits, in hexadecimal) of a file."""

    num_bytes: int
    blake2b: str


class Hasher:
    """Makes the digest of bytes that come in parts."""

    def __init__(self) -> None:
        """Of no bytes yet."""
        self._hash = hashlib.blake2b(digest_size=32)
        self._bytes = 0

    def update(self, part: bytes | bytearray | memoryview) -> None:
        """Take the next part."""
        self._hash.update(part)
        self._bytes += memoryview(part).nbytes

    def digest(self) -> Digest:
        """Of everything so far."""
        return Digest(self._bytes, self._hash.hexdigest())


def digest_of(path: Path) -> Digest:
    """Read a file once, a few MiB at a time; about a second per GiB besides the reading."""
    hasher, buffer = Hasher(), bytearray(_BUFFER_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return hasher.digest()


def write_file(path: Path, data: bytes) -> Digest:
    """Write a small file to the disk itself; returns its digest."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    hasher = Hasher()
    hasher.update(data)
    return hasher.digest()
