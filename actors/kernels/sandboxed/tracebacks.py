"""Tracebacks as a notebook shows them: standard form, user frames only, cells by number."""

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_HIDDEN = str(Path(__file__).resolve().parent)
_LONGEST_CHAIN = 4


def format_traceback(
    error: BaseException, frames: TracebackType | None, label_of: Callable[[str], str | None]
) -> str:
    """The traceback of ``error`` and of what caused it.

    Args:
        error: what ended the cell.
        frames: its traceback; ``error.__traceback__`` for the causes.
        label_of: what a code file name is shown as if it is a cell, else None.
    """
    parts = [_format_one(error, frames, label_of)]
    for _ in range(_LONGEST_CHAIN):
        cause = error.__cause__
        context = None if error.__suppress_context__ else error.__context__
        earlier = cause or context
        if earlier is None:
            break
        link = "caused by the exception above" if cause else "while handling the exception above"
        parts.append(_format_one(earlier, earlier.__traceback__, label_of) + f"... {link}:\n")
        error = earlier
    return "".join(reversed(parts))


def _format_one(
    error: BaseException, frames: TracebackType | None, label_of: Callable[[str], str | None]
) -> str:
    cells_only = isinstance(error, KeyboardInterrupt)
    lines = [
        _format_frame(frame, label_of)
        for frame in traceback.extract_tb(frames)
        if not (label_of(frame.filename) is None if cells_only else _is_internal(frame.filename))
    ]
    if lines:
        lines.insert(0, "Traceback (most recent call last):\n")
    return "".join(lines + traceback.format_exception_only(error))


def _is_internal(file: str) -> bool:
    return file.startswith(_HIDDEN) or "/IPython/core/" in file


def _format_frame(frame: traceback.FrameSummary, label_of: Callable[[str], str | None]) -> str:
    place = label_of(frame.filename) or f'File "{frame.filename}"'
    where = (
        "" if frame.name == "<module>" or frame.name.startswith("<cell") else f" in {frame.name}"
    )
    text = f"  {place}, line {frame.lineno}{where}\n"
    return text + (f"    {frame.line}\n" if frame.line else "")
