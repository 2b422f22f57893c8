"""Output of bounded size: its beginning and its end."""

from actors.kernels.sandboxed.terminal import as_terminal

MOST_MARK = 64
"""Characters that the line about what was dropped takes at most."""
SLACK_BYTES = 1 << 16
"""What is collected beyond the limit before something is dropped."""


class Clip:
    """Keeps a text of ``limit`` bytes whole, and of a longer one as much of each of its ends.

    Lines that overwrite themselves are reduced to what a terminal shows before anything is dropped.

    Attributes:
        longest: bytes of the longest piece that is looked at whole; of others, the ends are.
        dropped: bytes that are not kept, once ``text`` was called.
    """

    def __init__(self, limit: int) -> None:
        """Start empty."""
        self._limit = limit
        self.longest = 2 * limit + SLACK_BYTES
        self._head_room, self._tail_room = limit - limit // 2, limit // 2
        self._head, self._tail = bytearray(), bytearray()
        self._whole = True
        self.dropped = 0

    def append(self, data: bytes) -> None:
        """Go on with ``data``."""
        if len(data) > self.longest:
            ends = data[: self._limit], data[len(data) - self._limit :]
            self.append_ends(*ends, len(data))
            return
        end = self._head if self._whole else self._tail
        end += data
        if len(end) > self._limit + SLACK_BYTES:
            self._shorten()

    def append_ends(self, start: bytes, end: bytes, size: int) -> None:
        """Go on with ``size`` bytes of which only the ends are there, each as long as the limit."""
        self.append(start)
        self._shorten(split=True)
        self.dropped += size - len(start) - len(end)
        self.append(end)

    def text(self) -> str:
        """What is kept, with a line in its middle about what is not."""
        if not self._whole or len(self._head) > self._limit:
            self._shorten()
        head, tail = (part.decode("utf-8", "replace") for part in (self._head, self._tail))
        return f"{head}{dropped_mark(self.dropped)}{tail}" if self.dropped else head + tail

    def _shorten(self, *, split: bool = False) -> None:
        """Drop what lies between the two ends."""
        if self._whole:
            self._head = _reduced(self._head)
            if len(self._head) <= self._limit and not split:
                return
            self._whole = False
            end = _boundary(self._head, self._head_room)
            self._tail = self._head[end:]
            del self._head[end:]
        self._tail = _reduced(self._tail)
        if len(self._tail) > self._tail_room:
            start = _boundary(self._tail, len(self._tail) - self._tail_room, step=1)
            self.dropped += start
            del self._tail[:start]


def dropped_mark(dropped: int) -> str:
    """The line that stands for what was dropped."""
    return f"\n[{dropped} bytes of output dropped]\n"


def _reduced(data: bytearray) -> bytearray:
    if not any(mark in data for mark in (b"\r", b"\b", b"\x1b")):
        return data
    text = as_terminal(data.decode("utf-8", "surrogateescape"), goes_on=True)
    return bytearray(text.encode("utf-8", "surrogateescape"))


def _boundary(data: bytearray, position: int, step: int = -1) -> int:
    """``position``, moved by up to three steps so that it splits no character."""
    for _ in range(3):
        if 0 < position < len(data) and data[position] & 0xC0 == 0x80:
            position += step
    return position
