"""Numbers, and digits of another base, as they are written in LaTeX, exactly. Pure."""

import re
from fractions import Fraction

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
_MIXED = r"\\frac\s*\{\s*(?P<a>\d+)\s*\}\s*\{\s*(?P<b>\d+)\s*\}|\s(?P<c>\d+)/(?P<d>\d+)"
_FRACTION = (
    rf"\\frac\s*\{{\s*(?P<above>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<below>{_DECIMAL})\s*\}}"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<whole>\d+)\s*(?:{_MIXED})|{_FRACTION}|(?P<decimal>{_DECIMAL}))"
    r"\s*(?P<percent>\\?%|percent)?"
)
_BASED = re.compile(
    r"(?P<digits>\(?-?[0-9A-F]+(?:\.[0-9A-F]+)?\)?)\s*"
    r"(?:_\s*\{?\s*(?:\\text\s*\{)?\s*(?P<base>\d+|[a-z]+)\s*\}{0,2}|base\s+(?P<named>\d+|[a-z]+))"
)
_BASES = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)

_THOUSANDS = re.compile(r"([-+]?)(\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+))((?:\.\d+)?\s*(?:\\?%)?)")

CLOSE = Fraction(1, 10**9)
"""Relative difference up to which a decimal is the fraction that no decimal equals."""


def number(body: str) -> tuple[Fraction, bool] | None:
    """The number that ``body`` is, and whether it is a percentage; None for anything else."""
    text = body.strip()
    if grouped := _THOUSANDS.fullmatch(text):
        text = grouped.group(1) + re.sub(r"[,\s]", "", grouped.group(2)) + grouped.group(3)
    found = _NUMBER.fullmatch(text)
    if not found:
        return None
    part = found.group
    try:
        value = _value(found)
    except ZeroDivisionError:
        return None
    return -value if part("sign") == "-" else value, bool(part("percent"))


def _value(found: "re.Match[str]") -> Fraction:
    part = found.group
    if part("whole"):
        above, below = (part("a"), part("b")) if part("a") else (part("c"), part("d"))
        return int(part("whole")) + Fraction(int(above), int(below))
    if part("above"):
        return Fraction(part("above")) / Fraction(part("below"))
    if part("over"):
        return Fraction(part("over")) / Fraction(part("under"))
    return Fraction(part("decimal"))


def equal_exactly(given: str, gold: str) -> bool | None:
    """Whether two numbers are equal; None where one is no number.

    A percentage equals its value, and the number before its sign where the gold answer has none.
    """
    left, right = number(given), number(gold)
    if left is None or right is None:
        return None
    (one, one_is_share), (other, other_is_share) = left, right
    if one_is_share == other_is_share:
        return _close(one, other)
    one_value = one / 100 if one_is_share else one
    other_value = other / 100 if other_is_share else other
    return _close(one, other) or _close(one_value, other_value)


def _close(given: Fraction, gold: Fraction) -> bool:
    below = gold.denominator
    has_decimal = pow(10, below.bit_length(), below) == 0
    return given == gold if has_decimal else abs(given - gold) <= CLOSE * abs(gold)


def based(body: str) -> tuple[str, int] | None:
    """Digits and base of a number such as ``52_8``; None for anything else."""
    found = _BASED.fullmatch(body.strip())
    if not found:
        return None
    name = found.group("base") or found.group("named")
    base = int(name) if name.isdigit() else _BASES.index(name) + 2 if name in _BASES else 0
    return (found.group("digits").strip("()"), base) if base else None
