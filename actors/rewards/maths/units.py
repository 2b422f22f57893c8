r"""Units behind a value: ``\text{ cm}^2``, ``degrees``, ``inches``. Pure."""

import re

_SPELLINGS = {
    "degree": r"degrees?|deg|\^\{?\\circ\}?|\\degree",
    "centimetre": r"centimet(?:er|re)s?|cm",
    "millimetre": r"millimet(?:er|re)s?|mm",
    "kilometre": r"kilomet(?:er|re)s?|km",
    "metre": r"met(?:er|re)s?",
    "inch": r"inch(?:es)?",
    "foot": r"feet|foot|ft",
    "yard": r"yards?",
    "mile": r"miles?",
    "cent": r"cents?",
    "dollar": r"dollars?",
    "euro": r"euros?",
    "pound": r"pounds?|lbs?",
    "kilogram": r"kilograms?|kg",
    "gram": r"grams?",
    "litre": r"lit(?:er|re)s?",
    "gallon": r"gallons?",
    "second": r"seconds?|secs?",
    "minute": r"minutes?|mins?",
    "hour": r"hours?|hrs?",
    "day": r"days?",
    "week": r"weeks?",
    "month": r"months?",
    "year": r"years?",
    "mph": r"mph|miles per hour",
    "unit": r"units?",
    "radian": r"radians?",
    "person": r"people|persons?",
}
_NAMES = {re.compile(spelling): name for name, spelling in _SPELLINGS.items()}
_ANY = "|".join(_SPELLINGS.values())
_DEGREE_SIGN = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree)\s*$")
_POWER = r"\s*(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?\s*\.?\s*"
_BOXED_TEXT = re.compile(rf"\\text\s*\{{(?P<words>[^{{}}]*)\}}{_POWER}$")
_BARE = re.compile(
    rf"(?<=[\d}})\s])\s*(?P<words>(?:square |sq\.? |cubic |cu\.? )?(?:{_ANY})){_POWER}$"
)
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_WORDS = re.compile(r"[A-Za-z][A-Za-z .]*")
_SAYS_MORE = re.compile(r"\b(?:and|or|nor|no|not)\b", re.IGNORECASE)
_TEXT_END = re.compile(r"\\text\s*\{[^{}]*\}$")


def split_unit(text: str) -> tuple[str, str]:
    r"""A value and its unit, which is empty for none; one name for all its spellings.

    In ``\text{...}`` any words behind a value are its unit; bare words only where they are known
    ones, as letters are variables otherwise. Words behind words, or with "or" or "not" in them, are
    no unit: they may name a second answer.
    """
    sign = _DEGREE_SIGN.search(text)
    if sign and sign.start():
        return text[: sign.start()].strip(), "degree"
    found = _BOXED_TEXT.search(text) or _BARE.search(text)
    value = text[: found.start()].strip() if found else ""
    if not found or not value or value[-1] in "=+-(,{\\":
        return text, ""
    words = found.group("words").strip().rstrip(".")
    if not words:
        return value, ""
    if not _WORDS.fullmatch(words) or _SAYS_MORE.search(words) or _TEXT_END.search(value):
        return text, ""
    return value, _unit(words, found.group("power") or "")


def _unit(words: str, power: str) -> str:
    first, _, rest = words.lower().replace(".", "").partition(" ")
    if rest and first in _POWERS:
        words, power = rest, _POWERS[first]
    name = next((name for spelling, name in _NAMES.items() if spelling.fullmatch(words)), words)
    return f"{name} {power}".strip().lower()
