"""Says which line of a user's code an error, a hang or a crash is about."""

import re
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from traceback import extract_tb
from typing import Any

from common.child_process import SOURCE_ROOT

_OURS = tuple(f"{SOURCE_ROOT / name}/" for name in ("actors", "common", "launch", "learner"))
_LIBRARY = (sysconfig.get_path("stdlib") + "/", "<frozen ")
_INSTALLED = re.compile(r"/(site|dist)-packages/")
_DUMPED = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)

Frame = tuple[str, int, str]
"""File, line and function."""


def told(error: BaseException) -> str:
    """Kind, text and place of an error of the user's code."""
    return f"{type(error).__name__}: {error}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """Where ``error`` was raised, as `` (FILE, line N, in NAME)``; empty where only we were."""
    frames = [(f.filename, f.lineno or 0, f.name) for f in extract_tb(error.__traceback__)]
    return _place(reversed(frames))


def place_in(dump: str) -> str:
    """The same of a process whose stack ``faulthandler`` dumped, innermost call first."""
    return _place((file, int(line), name) for file, line, name in _DUMPED.findall(dump))


def place_of_function(function: Callable[..., Any]) -> str:
    """Where ``function`` is written; empty where it is not Python."""
    code = getattr(function, "__code__", None)
    return "" if code is None else _place([(code.co_filename, code.co_firstlineno, code.co_name)])


def _place(frames: Iterable[Frame]) -> str:
    """The innermost frame of the user's own files, else of a package that they installed."""
    foreign = [frame for frame in frames if not frame[0].startswith((*_OURS, *_LIBRARY))]
    own = [frame for frame in foreign if not _INSTALLED.search(frame[0])]
    for file, line, name in (own or foreign)[:1]:
        return f" ({Path(file)}, line {line}, in {name})"
    return ""
