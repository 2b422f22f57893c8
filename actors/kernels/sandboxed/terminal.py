"""What a terminal shows of a text that moves its cursor, as progress bars do."""

import re

_MOVES = re.compile("(\r|\b|\x1b\\[[02]?K)")
"""Back to the start of the line, one column back, and erasing (the rest of) a line."""
_STARTS = ("\r", "\b", "\x1b")


def as_terminal(text: str, *, goes_on: bool = False) -> str:
    """``text`` as it stands in the end, line by line, in time linear in its length.

    Args:
        text: what was written.
        goes_on: more is to come, and must find the cursor where it is.
    """
    if not any(start in text for start in _STARTS):
        return text
    *lines, last = text.replace("\r\n", "\n").split("\n")
    return "\n".join(
        [*(_line(line, goes_on=False) for line in lines), _line(last, goes_on=goes_on)]
    )


def _line(line: str, *, goes_on: bool) -> str:
    column = blank = 0
    cells: list[str] = []  # the columns after those that are blank
    for piece in _MOVES.split(line):
        if piece == "\r":
            column = 0
        elif piece == "\b":
            column = max(0, column - 1)
        elif piece == "\x1b[2K":
            blank, cells = column, []
        elif piece in ("\x1b[K", "\x1b[0K"):
            blank = min(blank, column)
            del cells[column - blank :]
        elif piece:
            if column < blank:
                cells[:0] = " " * (blank - column)
                blank = column
            cells[column - blank : column - blank + len(piece)] = piece
            column += len(piece)
    text = " " * blank + "".join(cells)
    return f"{text}\r{text[:column]}" if goes_on and column < len(text) else text
