r"""The value that a mathematical answer states, without the dress it comes in. Pure.

Taken off: ``$...$``, ``\boxed{...}``, "The answer is ...", bold type, a full stop; ``\left`` and
``\right``; spaces of LaTeX; a currency sign in front. Made one: ``\dfrac`` and ``\frac43``,
``\sqrt2``, the kinds of matrix and of upright text.
"""

import re
from dataclasses import dataclass

from actors.rewards.maths.plain_text import as_latex
from actors.rewards.maths.units import split_unit

MAX_CHARACTERS = 1000
"""A longer answer, or gold answer, equals nothing."""

_WRAPPERS = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"\$\$(?P<in>[^$]+)\$\$",
        r"\$(?P<in>(?:[^$\\]|\\.)+)\$",
        r"\\\((?P<in>.+)\\\)",
        r"\\\[(?P<in>.+)\\\]",
        r"\*\*(?P<in>[^*]+)\*\*",
        r"(?:the\s+)?(?:final\s+)?answer(?:\s+is|\s*[:=])\s*:?\s*(?P<in>.+)",
        r"(?P<in>.*[^\\\s.])\s*\.",
    )
)
_BOX = re.compile(r"\\f?boxed?\s*\{")
_DRESS = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|hfill)(?![A-Za-z])"), ""),
    (re.compile(r"(?<=\d),\s*\\[!,]\s*(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\[!,;: ]|\\q?quad(?![A-Za-z])|~"), " "),
    (re.compile(r"\\(?:mbox|mathrm|textrm|textbf|textit|mathbf|mathit)(?=\s*\{)"), r"\\text"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"\\frac\s*(\{[^{}]*\})\s*([0-9A-Za-z])"), r"\\frac\1{\2}"),
    (re.compile(r"\\sqrt\s*([0-9A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\(begin|end)\{[bvBV]?matrix\}"), r"\\\1{pmatrix}"),
    (re.compile(r"\\begin\{array\}\{[^{}]*\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
    (re.compile(r"[\[(]\s*(\\begin\{pmatrix\}.*?\\end\{pmatrix\})\s*[\])]", re.DOTALL), r"\1"),
    (re.compile(r"(?<!\d)\\?[$\N{EURO SIGN}\N{POUND SIGN}](?=\s*[-\d.])"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"\\text\s*\{\s*(?:and|or)\s*\}"), ","),
)
_TEXT = re.compile(r"\\text\s*\{(?P<in>[^{}]*\d[^{}]*)\}")
"""Text that is no words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What an answer states.

    Attributes:
        body: LaTeX of the value; empty for nothing.
        unit: behind it; empty for none.
    """

    body: str
    unit: str = ""

    @property
    def compact(self) -> str:
        """The body without white space."""
        return "".join(self.body.split())


def read(text: str) -> Written:
    """Read an answer or a gold answer; of a text beyond ``MAX_CHARACTERS`` nothing is read."""
    if len(text) > MAX_CHARACTERS:
        return Written(body="")
    bare = _unwrapped(text.strip())
    for pattern, replacement in _DRESS:
        bare = pattern.sub(replacement, bare)
    if only := _TEXT.fullmatch(bare):
        bare = only.group("in")
    value, unit = split_unit(as_latex(bare).strip())
    return Written(body=value, unit=unit) if re.search(r"[^\W_]", value) else Written(body="")


def _unwrapped(text: str) -> str:
    """``text`` out of what wraps the whole of it."""
    while True:
        inner = _out_of_box(text)
        for wrapper in _WRAPPERS:
            if inner is None and (found := wrapper.fullmatch(text)):
                inner = found.group("in")
        if inner is None:
            return text
        text = inner.strip()


def _out_of_box(text: str) -> str | None:
    """What is in the box, if the whole text is one."""
    start = _BOX.match(text)
    if not start:
        return None
    depth = 1
    for place in range(start.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start.end() : place] if place == len(text) - 1 else None
    return None
