"""Tracebacks as a notebook shows them: standard form, user frames only, cells by number, short."""

import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_HIDDEN = str(Path(__file__).resolve().parent)
_HIDDEN_PARTS = ("/site-packages/IPython/", "/site-packages/msgpack/", "msgpack/_packer.pyx")
"""The shell, and what carries the arguments of tools."""
_PACKAGE = __name__.rpartition(".")[0]
_LONGEST_CHAIN = 4
_FIRST_FRAMES, _LAST_FRAMES = 10, 8
_MOST_OF_GROUP = 4
_DEEPEST_GROUP = 3


def format_traceback(
    error: BaseException,
    frames: TracebackType | None,
    label_of: Callable[[str], str | None],
    *,
    depth: int = 0,
) -> str:
    """The traceback of ``error`` and of what caused it.

    Args:
        error: what ended the cell.
        frames: its traceback; ``error.__traceback__`` for the causes.
        label_of: what a code file name is shown as if it is a cell, else None.
        depth: of the exception groups that ``error`` is in.
    """
    parts = [_format_one(error, frames, label_of, depth)]
    for _ in range(_LONGEST_CHAIN):
        cause = error.__cause__
        context = None if error.__suppress_context__ else error.__context__
        earlier = cause or context
        if earlier is None:
            break
        link = "caused by the exception above" if cause else "while handling the exception above"
        text = _format_one(earlier, earlier.__traceback__, label_of, depth)
        parts.append(text + f"... {link}:\n")
        error = earlier
    return "".join(reversed(parts))


def _format_one(
    error: BaseException,
    frames: TracebackType | None,
    label_of: Callable[[str], str | None],
    depth: int,
) -> str:
    cells_only = isinstance(error, KeyboardInterrupt)
    lines = [
        _format_frame(frame, label_of)
        for frame in traceback.extract_tb(frames)
        if not (label_of(frame.filename) is None if cells_only else _is_internal(frame.filename))
    ]
    if lines:
        lines = ["Traceback (most recent call last):\n", *_fold(lines, error)]
    module = str(type(error).__module__)  # a class may say anything there
    own = f"{module}." if module.startswith(_PACKAGE) else ""
    lines += [line.removeprefix(own) for line in traceback.format_exception_only(error)]
    if isinstance(error, BaseExceptionGroup) and depth < _DEEPEST_GROUP:
        lines += _format_group(error, label_of, depth + 1)
    return "".join(lines)


def _is_internal(file: str) -> bool:
    return file.startswith(_HIDDEN) or any(part in file for part in _HIDDEN_PARTS)


def _fold(lines: list[str], error: BaseException) -> list[str]:
    """Leave out the middle of many frames; of an endless recursion, all but the beginning."""
    rest = len(lines) - _FIRST_FRAMES - _LAST_FRAMES
    if rest <= 1:
        return lines
    if isinstance(error, RecursionError):
        return [*lines[:_FIRST_FRAMES], "  ... and so on, until the recursion was too deep\n"]
    return [*lines[:_FIRST_FRAMES], f"  ... {rest} more frames ...\n", *lines[-_LAST_FRAMES:]]


def _format_group(
    group: BaseExceptionGroup[BaseException], label_of: Callable[[str], str | None], depth: int
) -> list[str]:
    """What is in an exception group, indented."""
    count = len(group.exceptions)
    parts = []
    for number, error in enumerate(group.exceptions[:_MOST_OF_GROUP], 1):
        text = format_traceback(error, error.__traceback__, label_of, depth=depth)
        parts.append(f"  sub-exception {number} of {count}:\n{textwrap.indent(text, '    ')}")
    if count > _MOST_OF_GROUP:
        parts.append(f"  ... {count - _MOST_OF_GROUP} more sub-exceptions ...\n")
    return parts


def _format_frame(frame: traceback.FrameSummary, label_of: Callable[[str], str | None]) -> str:
    place = label_of(frame.filename) or f'File "{frame.filename}"'
    where = (
        "" if frame.name == "<module>" or frame.name.startswith("<cell") else f" in {frame.name}"
    )
    text = f"  {place}, line {frame.lineno}{where}\n"
    return text + (f"    {frame.line}\n" if frame.line else "")
