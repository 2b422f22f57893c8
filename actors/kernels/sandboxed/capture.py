"""What a cell writes: Python streams and file descriptors 1 and 2, in order and capped."""

import io
import os

_DRAIN_BYTES = 1 << 16


class Capture:
    """Collects the output of the running cell.

    Python's streams write here directly; processes started by the cell write to a memory file on
    descriptors 1 and 2, which is drained before every write so that the order is kept.
    """

    def __init__(self) -> None:
        """Start empty; ``descriptor`` is set once descriptors 1 and 2 are redirected."""
        self.descriptor: int | None = None
        self._kept = bytearray()
        self._dropped = 0
        self._room = 0

    def begin(self, limit: int) -> None:
        """Start a cell that may write ``limit`` bytes."""
        self._kept.clear()
        self._dropped, self._room = 0, limit

    def finish(self) -> tuple[str, int]:
        """The text kept and the number of bytes dropped."""
        self.drain()
        return self._kept.decode("utf-8", "replace"), self._dropped

    def write(self, text: str) -> None:
        """Append text."""
        self.drain()
        self._append(text[: self._room + 1].encode("utf-8", "replace"), len(text))

    def drain(self) -> None:
        """Append what went to descriptors 1 and 2 since the last time."""
        if self.descriptor is None:
            return
        try:
            size = os.fstat(self.descriptor).st_size
            if size:
                data = os.pread(self.descriptor, min(size, _DRAIN_BYTES), 0)
                os.ftruncate(self.descriptor, 0)
                self._append(data, size)
        except OSError:  # user code closed or replaced the descriptor: its own loss
            self.descriptor = None

    def _append(self, data: bytes, size: int) -> None:
        kept = data[: self._room]
        self._kept += kept
        self._room -= len(kept)
        self._dropped += max(size, len(data)) - len(kept)


class CapturedStream(io.TextIOBase):
    """A ``sys.stdout`` or ``sys.stderr`` that writes to a ``Capture``."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, capture: Capture, descriptor: int) -> None:
        """Write to ``capture``; ``fileno`` answers ``descriptor`` for the sake of subprocess."""
        self._capture = capture
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Streams of a notebook can be written."""
        return True

    def fileno(self) -> int:
        """The descriptor that child processes inherit."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Append ``text`` to the cell's output."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._capture.write(text)
        return len(text)
