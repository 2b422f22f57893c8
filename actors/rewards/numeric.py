r"""Reads numbers as people and models write them, and compares them.

Understood: signs, decimals, thousands separators (comma, underscore, apostrophe, no-break and thin
spaces, in groups of three), exponents, percent (divides by 100), fractions, mixed numbers, a
leading currency sign, and LaTeX's ``$...$``, ``\boxed{...}`` and ``\frac{a}{b}``. Anything else
beside the number makes it no number: "about 5" is none, and neither is "3,14".
"""

import re
import unicodedata
from fractions import Fraction

_MAX_CHARACTERS = 100
_MAX_EXPONENT = 300
_NUMBER = r"(?:\d{1,3}(?:[,_'’]\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_DECIMAL = re.compile(rf"({_NUMBER})(?:e([+-]?\d{{1,4}}))?")
_FRACTION = re.compile(r"(?:(\d+) +)?(\d+) */ *(\d+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_BOXED = re.compile(r"\\boxed\{(.*)\}")
_SEPARATORS = re.compile(r"[,_'’]")
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2009\u202f", "_"))
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013", "-"))


def parse_number(text: str) -> Fraction | None:
    """The exact value of ``text``, or None where it is not one number."""
    if len(text) > _MAX_CHARACTERS:
        return None
    text = _plain(_unwrap(text.strip()))
    if len(text) > _MAX_CHARACTERS:  # a few characters become many in the plain form
        return None
    negative = text.startswith("-")
    text = text[1:].lstrip() if text[:1] in ("-", "+") else text
    if text and unicodedata.category(text[0]) == "Sc":
        text = text[1:].lstrip()
    percent = text.endswith("%")
    text = text.removesuffix("\\%").removesuffix("%").rstrip()
    value = _unsigned(text)
    if value is None:
        return None
    return (-value if negative else value) / (100 if percent else 1)


def equal_numbers(answer: str, gold: str, *, relative: float, absolute: float) -> bool:
    """Whether both are numbers with |answer - gold| <= max(relative |gold|, absolute)."""
    given, wanted = parse_number(answer), parse_number(gold)
    if given is None or wanted is None:
        return False
    return abs(given - wanted) <= max(Fraction(relative) * abs(wanted), Fraction(absolute))


def _plain(text: str) -> str:
    """Only ASCII where there is a plain way to write it."""
    # Before a vulgar fraction: 1½ would become 11/2.
    text = "".join(f" {c}" if unicodedata.category(c) == "No" else c for c in text)
    text = unicodedata.normalize("NFKC", text.translate(_MINUS).translate(_SPACES)).casefold()
    return _LATEX_FRACTION.sub(r" \1/\2", text.replace("\u2044", "/")).strip()


def _unwrap(text: str) -> str:
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    boxed = _BOXED.fullmatch(text)
    return boxed.group(1).strip() if boxed else text


def _unsigned(text: str) -> Fraction | None:
    fraction = _FRACTION.fullmatch(text)
    if fraction is not None:
        whole, above, below = (int(part or 0) for part in fraction.groups())
        return whole + Fraction(above, below) if below else None
    decimal = _DECIMAL.fullmatch(text)
    if decimal is None:
        return None
    exponent = int(decimal.group(2) or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    return Fraction(_SEPARATORS.sub("", decimal.group(1)).rstrip(".")) * Fraction(10) ** exponent
