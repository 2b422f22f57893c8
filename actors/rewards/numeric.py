r"""Reads numbers as people and models write them, and compares them.

Understood: signs, decimals, thousands separators (comma, underscore, apostrophe, space, in
groups of three), exponents (``1.5e3``, ``1.5 x 10^3``, ``10³``), percent (divides by 100),
fractions, mixed numbers, thousand to trillion behind the number, one currency sign before or behind
it, digits of any script, and LaTeX's ``$...$``, ``\boxed{...}`` and ``\frac{a}{b}``. A sign stands
before or behind that of a currency (``-$5``, ``$-5``), and ``($5)`` is minus five, as in accounts.
Anything else beside the number makes it no number: "about 5" and "(5)" are none, and neither is
"3,14", which may be a list or a decimal.
"""

import re
from fractions import Fraction

from common.text_tokens import fold

_MAX_CHARACTERS = 100
_MAX_EXPONENT = 300
_NUMBER = r"(?:\d{1,3}(?:[,_' ]\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"10 ?\^ ?\{?([+-]?\d{1,4})\}?"
_DECIMAL = re.compile(rf"({_NUMBER})(?:e([+-]?\d{{1,4}})| ?[x*] ?{_POWER})?")
_POWER_OF_TEN = re.compile(_POWER)
_FRACTION = re.compile(r"(?:(\d+) +)?(\d+) */ *(\d+)")
_MINUS_BELOW = re.compile(r"(\d+) */ *-(\d+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac(?:\{(-?\d+)\}\{(-?\d+)\}|(\d)(\d))")
_LATEX = {
    r"\$": "$", r"\%": "%", "{,}": ",", r"\,": "_", r"\!": "", r"\times": " x ", r"\cdot": " x ",
}  # fmt: skip
_BOXED = re.compile(r"\\boxed\{(.*)\}")
_SEPARATORS = re.compile(r"[,_' ]")
_CURRENCY = re.compile(r"([+-]?) ?\$ ?([^$]*)|([^$]*) ?\$")
_PERCENT = re.compile(r" ?(?:%|per ?cent)")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"[ -]?({'|'.join(_SCALES)})")


def parse_number(text: str) -> Fraction | None:
    """The exact value of ``text``, or None where it is not one number."""
    if len(text) > _MAX_CHARACTERS:
        return None
    text = _without_currency(_plain(_unwrap(text.strip())))
    if len(text) > _MAX_CHARACTERS:  # a few characters become many in the plain form
        return None
    sign = -1 if text.startswith("-") else 1
    text = text[1:].lstrip() if text[:1] in ("-", "+") else text
    text, percent = _without_end(text, _PERCENT)
    text, scale = _without_end(text, _SCALE)
    value = _unsigned(text)
    if value is None:
        return None
    factor = Fraction(10) ** _SCALES.get(scale.strip(" -"), 0)
    return sign * value * factor / (100 if percent else 1)


def equal_numbers(answer: str, gold: str, *, relative: float, absolute: float) -> bool:
    """Whether both are numbers with |answer - gold| <= max(relative |gold|, absolute)."""
    given, wanted = parse_number(answer), parse_number(gold)
    if given is None or wanted is None:
        return False
    return abs(given - wanted) <= max(Fraction(relative) * abs(wanted), Fraction(absolute))


def _plain(text: str) -> str:
    """Only ASCII where there is a plain way to write it; every currency is ``$``."""
    for written, plain in _LATEX.items():
        text = text.replace(written, plain)
    text = _LATEX_FRACTION.sub(lambda f: f" {f[1] or f[3]}/{f[2] or f[4]}", fold(text))
    text = " ".join(text.split())
    # A minus below the line of a fraction is one before it.
    return f"-{below[1]}/{below[2]}" if (below := _MINUS_BELOW.fullmatch(text)) else text


def _unwrap(text: str) -> str:
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    boxed = _BOXED.fullmatch(text)
    return boxed.group(1).strip() if boxed else text


def _without_currency(text: str) -> str:
    if text.startswith("($") and text.endswith(")"):
        text = f"-{text[1:-1]}"
    found = _CURRENCY.fullmatch(text)
    return (found[3] or (found[1] or "") + (found[2] or "")).strip() if found else text


def _without_end(text: str, end: re.Pattern[str]) -> tuple[str, str]:
    """The text before ``end``, and what matched it; nothing where it does not end so."""
    for found in end.finditer(text):
        if found.end() == len(text):
            return text[: found.start()], found.group()
    return text, ""


def _unsigned(text: str) -> Fraction | None:
    if fraction := _FRACTION.fullmatch(text):
        whole, above, below = (int(part or 0) for part in fraction.groups())
        return whole + Fraction(above, below) if below else None
    if power := _POWER_OF_TEN.fullmatch(text):
        return _scaled(Fraction(1), int(power[1]))
    if decimal := _DECIMAL.fullmatch(text):
        digits = Fraction(_SEPARATORS.sub("", decimal[1]).rstrip("."))
        return _scaled(digits, int(decimal[2] or decimal[3] or 0))
    return None


def _scaled(value: Fraction, exponent: int) -> Fraction | None:
    return value * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None
