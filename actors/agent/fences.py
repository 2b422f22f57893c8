"""Finds Markdown code blocks of Python as models write them. Pure, in one pass over the lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPENING = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*\{?\.?([\w+#.-]*)")
_PYTHON = re.compile(r"(?:i?python[\d.]*|py\d*|python-?repl|tool_code|jupyter)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fence:
    """A fenced block: where it stands in the text, and the code between its fences."""

    start: int
    end: int
    code: str


def find_fence(text: str, *, unclosed: bool, start: int = 0) -> Fence | None:
    """The first of ``find_fences``, or None."""
    return next(find_fences(text, unclosed=unclosed, start=start), None)


def find_fences(text: str, *, unclosed: bool, start: int = 0) -> Iterator[Fence]:
    """The blocks from ``start`` on that are Python, or do not say what they are.

    Args:
        text: what a model wrote.
        unclosed: whether a block may go on to the end of the text.
        start: where to begin.
    """
    opened: _Opened | None = None
    for line, at in _lines(text, start):
        if opened is None:
            opened = _opening(line, at)
        elif opened.is_closed_by(line):
            if opened.is_python:
                yield Fence(start=opened.start, end=at + len(line), code=opened.code())
            opened = None
        else:
            opened.lines.append(line)
    if unclosed and opened is not None and opened.is_python:
        yield Fence(start=opened.start, end=len(text), code=opened.code())


def whole_fence(text: str) -> str | None:
    """What is in the block that ``text`` consists of, whatever its language; None if it is none."""
    first, *rest = (line for line, _ in _lines(text.strip(), 0))
    opened = _opening(first, 0)
    if opened is None:
        return None
    closed = next((n for n, line in enumerate(rest) if opened.is_closed_by(line)), None)
    if closed is not None and closed < len(rest) - 1:
        return None
    opened.lines = rest[:closed]
    return opened.code()


class _Opened:
    """A block that was opened, and its lines so far."""

    def __init__(self, start: int, indent: str, marks: str, language: str) -> None:
        self.start, self._indent, self._marks = start, indent, marks
        self.is_python = _PYTHON.fullmatch(language) is not None
        self.lines: list[str] = []

    def is_closed_by(self, line: str) -> bool:
        marks = line.strip()
        return len(marks) >= len(self._marks) and set(marks) == {self._marks[0]}

    def code(self) -> str:
        """The lines, less the indentation of the opening one."""
        return "\n".join(self._outdented(line) for line in self.lines)

    def _outdented(self, line: str) -> str:
        width = len(self._indent)
        return line[width:] if line[:width].isspace() else line.lstrip() if width else line


def _opening(line: str, at: int) -> _Opened | None:
    found = _OPENING.match(line)
    if found is None or (found.group(2)[0] == "`" and "`" in line[found.end() :]):
        return None  # none, or code within a line
    return _Opened(at, *found.groups())


def _lines(text: str, start: int) -> list[tuple[str, int]]:
    """The lines from ``start`` on without their ends, and where each begins."""
    lines: list[tuple[str, int]] = []
    for line in text[start:].split("\n"):
        lines.append((line.removesuffix("\r"), start))
        start += len(line) + 1
    return lines
