"""Puts the output of one Jupyter cell together: capped, and counted as a notebook shows it."""

import re
from typing import Any

_LOST = "[output was lost: too much of it, or too much at once]\n"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Transcript:
    """Text of a cell's iopub messages in order. Pure; the messages are untrusted.

    Attributes:
        dropped: bytes beyond the limit.
        outputs: runs of one stream, displayed values and tracebacks, each counted.
    """

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes."""
        self._room = limit
        self._kept = bytearray()
        self._stream: str | None = None
        self.dropped = 0
        self.outputs = 0

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Append what a message shows; other messages are skipped."""
        if kind == "stream":
            self._append(str(content.get("text", "")), stream=str(content.get("name", "")))
        elif kind in ("execute_result", "display_data"):
            data = content.get("data")
            text = data.get("text/plain", "") if isinstance(data, dict) else ""
            self._append(f"{text}\n")
        elif kind == "error":
            lines = content.get("traceback")
            text = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
            self._append(_COLOURS.sub("", text) + "\n")

    def end_early(self) -> None:
        """The rest of the messages did not come: they were too large, or too many."""
        self._room = max(self._room, len(_LOST))
        self._append(_LOST)

    def text(self) -> str:
        """What was kept, and a last line about what was dropped."""
        return cut_text(self._kept.decode("utf-8", "replace"), self.dropped)

    def _append(self, text: str, stream: str | None = None) -> None:
        if stream is None or stream != self._stream:
            self.outputs += 1
        self._stream = stream
        data = text.encode("utf-8", "replace")
        kept = data[: self._room]
        self._kept += kept
        self._room -= len(kept)
        self.dropped += len(data) - len(kept)


def cut_text(text: str, dropped: int) -> str:
    """``text``, with a last line that says how many bytes were dropped, if any were."""
    return text + (f"\n[{dropped} bytes of output dropped]\n" if dropped else "")
