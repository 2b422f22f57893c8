"""What a cell writes: Python streams and file descriptors 1 and 2, in order and capped."""

import io
import os

from actors.kernels.sandboxed.clip import Clip

_PIECE = 1 << 16


class Capture:
    """Collects the output of the running cell, and counts outputs as a notebook shows them.

    Python's streams write here directly; processes started by the cell write to a memory file on
    descriptors 1 and 2, which is drained before every write so that the order is kept.
    """

    def __init__(self) -> None:
        """Start empty; ``descriptor`` is set once descriptors 1 and 2 are redirected."""
        self.descriptor: int | None = None
        self.begin(0)

    def begin(self, limit: int) -> None:
        """Start a cell that may write ``limit`` bytes."""
        self._limit, self._clip = limit, Clip(limit)
        self._outputs, self._stream = 0, ""

    def finish(self) -> tuple[str, int, int]:
        """The text kept, the number of bytes dropped and the number of outputs."""
        self.drain()
        return self._clip.text(), self._clip.dropped, self._outputs

    def write(self, text: str, stream: str = "") -> None:
        """Append text: to ``stream``, or as an output of its own (a value, a traceback)."""
        self.drain()
        self._count(stream)
        if len(text) <= self._clip.longest:
            self._clip.append(text.encode("utf-8", "replace"))
        else:
            start = text[: self._limit].encode("utf-8", "replace")
            end = text[len(text) - self._limit :].encode("utf-8", "replace")
            self._clip.append_ends(start, end, _size(text))

    def note(self, text: str) -> None:
        """Append what the kernel itself has to say, if that is anything."""
        if text:
            self.write(text)

    def drain(self) -> None:
        """Append what went to descriptors 1 and 2 since the last time."""
        if self.descriptor is None:
            return
        try:
            size = os.fstat(self.descriptor).st_size
            if size:
                self._read(self.descriptor, size)
        except OSError:  # user code closed or replaced the descriptor: its own loss
            self.descriptor = None

    def _read(self, descriptor: int, size: int) -> None:
        if size <= self._clip.longest:
            parts = [os.pread(descriptor, size, 0)]
        else:
            starts = (0, size - self._limit)
            parts = [os.pread(descriptor, self._limit, start) for start in starts]
        os.ftruncate(descriptor, 0)
        self._count("stdout")
        if len(parts) == 1:
            self._clip.append(parts[0])
        else:
            self._clip.append_ends(parts[0], parts[1], size)

    def _count(self, stream: str) -> None:
        """Runs of one stream are one output."""
        if not stream or stream != self._stream:
            self._outputs += 1
        self._stream = stream


def _size(text: str) -> int:
    """Bytes of ``text`` in UTF-8, without a second copy of it."""
    if text.isascii():
        return len(text)
    pieces = range(0, len(text), _PIECE)
    return sum(len(text[i : i + _PIECE].encode("utf-8", "replace")) for i in pieces)


class CapturedStream(io.TextIOBase):
    """A ``sys.stdout`` or ``sys.stderr`` that writes to a ``Capture``."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, capture: Capture, descriptor: int) -> None:
        """Write to ``capture``; ``fileno`` answers ``descriptor`` for the sake of subprocess."""
        self._capture = capture
        self._descriptor = descriptor
        self._stream = "stderr" if descriptor == 2 else "stdout"

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
        if text:
            self._capture.write(text, self._stream)
        return len(text)
