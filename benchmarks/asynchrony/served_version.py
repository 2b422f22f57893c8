"""The weight version that the simulated policy samples with, in memory that its process shares."""

import mmap
from pathlib import Path
from typing import Self

_BYTES = 8


class ServedVersion:
    """A number in a file of eight bytes; a context manager.

    What was written before a message left is read by whoever got the message.
    """

    def __init__(self, path: Path) -> None:
        """The number in ``path``, 0 where there is no such file yet."""
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    @property
    def now(self) -> int:
        """The version."""
        return int.from_bytes(self._memory[:], "little")

    def become(self, version: int) -> None:
        """Sample with ``version`` from now on."""
        self._memory[:] = version.to_bytes(_BYTES, "little")
