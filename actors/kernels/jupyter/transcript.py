"""Puts the output of one Jupyter cell together: capped, and counted as a notebook shows it."""

import re
from typing import Any

from actors.kernels.sandboxed.clip import Clip

_LOST = "[output was lost: too much of it, or too much at once]\n"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class CellTranscript:
    """Text of a cell's iopub messages in order. Pure; the messages are untrusted.

    Attributes:
        sent: bytes that came.
        outputs: runs of one stream, displayed values and tracebacks, each counted.
    """

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes."""
        self._clip = Clip(limit)
        self._stream: str | None = None
        self._lost = False
        self.sent = 0
        self.outputs = 0

    def add(self, kind: Any, content: dict[str, Any]) -> None:
        """Append what a message shows; other messages are skipped."""
        if kind == "stream":
            self._append(_text(content.get("text")), stream=_text(content.get("name")))
        elif kind in ("execute_result", "display_data"):
            data = content.get("data")
            text = _text(data.get("text/plain")) if isinstance(data, dict) else ""
            self._append(f"{text}\n")
        elif kind == "error":
            lines = content.get("traceback")
            text = "\n".join(map(_text, lines)) if isinstance(lines, list) else ""
            self._append(_COLOURS.sub("", text) + "\n")

    def end_early(self) -> None:
        """The rest of the messages did not come: they were too large, or too many."""
        self._lost = True
        self.outputs += 1

    def finish(self) -> tuple[str, int, int]:
        """The text kept, the number of bytes dropped and the number of outputs."""
        text = self._clip.text() + (_LOST if self._lost else "")
        return text, self._clip.dropped, self.outputs

    def _append(self, text: str, stream: str | None = None) -> None:
        if stream is None or stream != self._stream:
            self.outputs += 1
        self._stream = stream
        data = text.encode("utf-8", "replace")
        self.sent += len(data)
        self._clip.append(data)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
