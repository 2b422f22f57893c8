"""Makes text from outside safe to print: it can neither steer a terminal nor reorder a line.

Questions, answers, labels, file names, actor ids and the messages of other programs all end on a
screen or in a log. A control character among them could move the cursor, rename the window or hide
a line, and a bidirectional override lets a line read differently from what it says.
"""

import re

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls, but for tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides, isolates
    "\u2028\u2029"  # separators that some terminals take as newlines
    "\ud800-\udfff]"  # lone surrogates, which no stream can encode
)


def visible(text: str) -> str:
    """``text`` with a picture for every character that could steer a terminal.

    Control characters become their symbol, bidirectional controls and line separators their code
    point in brackets, lone surrogates the replacement character. Tabs and newlines stay.
    """
    return _STEERING.sub(_picture, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """The same on one line: a newline becomes its picture, too."""
    return visible(text).replace("\n", "\N{SYMBOL FOR NEWLINE}")


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code < 0xA0:
        return "\N{SYMBOL FOR DELETE}"
    if 0xD800 <= code < 0xE000:
        return "\N{REPLACEMENT CHARACTER}"
    return f"<U+{code:04X}>"
