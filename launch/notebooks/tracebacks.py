"""Takes an observation apart into what a notebook shows: text, and the error at the end. Pure."""

import re
from dataclasses import dataclass

from common.wire.records import Step

_TRACEBACK = re.compile(
    r"^(?:Traceback \(most recent call last\):|  Cell In\[\d+\], line \d+)", re.M
)
_NAMED = re.compile(r"([A-Za-z_][\w.]*)(?:: ?(.*))?", re.DOTALL)
_NOTEPAD = "\n[notepad]\n"
"""Begins what the agent's loop appends to an output when the notepad changed."""
_FAILED = ("error", "timed_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class CellError:
    """The exception that ended a cell.

    Attributes:
        name: its class, e.g. ``ZeroDivisionError``.
        value: its text; may be empty.
        traceback: all of it, as shown.
    """

    name: str
    value: str
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CellOutput:
    """What a cell printed, the error that ended it, and what was appended to that."""

    printed: str
    error: CellError | None = None
    appended: str = ""


def split_output(step: Step) -> CellOutput:
    """The parts of a step's observation.

    The observation is what the policy saw: it may be cut short, and then the error has no name.
    Records of older versions do not say how a cell ended; there the text decides.
    """
    text, _, appended = step.observation.partition(_NOTEPAD)
    if step.status and step.status not in _FAILED:
        return CellOutput(printed=step.observation)
    start = _TRACEBACK.search(text)
    if start is None:
        return _without_traceback(step)
    error = _error(text[start.start() :])
    if error is None and not step.status:
        return CellOutput(printed=step.observation)
    error = error or CellError(name="Error", value="", traceback=text[start.start() :])
    return CellOutput(printed=text[: start.start()], error=error, appended=appended)


def _without_traceback(step: Step) -> CellOutput:
    if step.status not in _FAILED:
        return CellOutput(printed=step.observation)
    name = "TimeoutError" if step.status == "timed_out" else "Error"
    value = "the cell was interrupted" if step.status == "timed_out" else "the cell failed"
    return CellOutput(
        printed=step.observation, error=CellError(name=name, value=value, traceback="")
    )


def _error(traceback: str) -> CellError | None:
    """The error's name stands in the first line after the last frame that is not indented."""
    lines = traceback.rstrip("\n").split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    last = max(frames, default=0)
    found = _NAMED.fullmatch("\n".join(lines[last + 1 :]))
    if found is None:
        return None
    return CellError(name=found[1].rpartition(".")[2], value=found[2] or "", traceback=traceback)
