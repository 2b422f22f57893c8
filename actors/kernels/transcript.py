"""Puts the output of one Jupyter cell together, capped."""

import re
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Transcript:
    """Text of a cell's iopub messages in order. Pure; the messages are untrusted."""

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes."""
        self._room = limit
        self._kept = bytearray()
        self.dropped = 0

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Append what a message shows; other messages are skipped."""
        if kind == "stream":
            self._append(str(content.get("text", "")))
        elif kind in ("execute_result", "display_data"):
            data = content.get("data")
            text = data.get("text/plain", "") if isinstance(data, dict) else ""
            self._append(f"{text}\n")
        elif kind == "error":
            lines = content.get("traceback")
            text = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
            self._append(_COLOURS.sub("", text) + "\n")

    def text(self) -> str:
        """What was kept, and a last line about what was dropped."""
        kept = self._kept.decode("utf-8", "replace")
        return kept + (f"\n[{self.dropped} bytes of output dropped]\n" if self.dropped else "")

    def _append(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        kept = data[: self._room]
        self._kept += kept
        self._room -= len(kept)
        self.dropped += len(data) - len(kept)
