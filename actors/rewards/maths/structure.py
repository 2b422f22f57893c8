"""Lists, tuples, intervals and unions, taken apart; plus-minus as two values. Pure."""

import re
from dataclasses import dataclass

_OPENS, _CLOSES = "([{", ")]}"
_BRACES = re.compile(r"\\(?:lbrace(?![A-Za-z])|\{)")
_CLOSING_BRACES = re.compile(r"\\(?:rbrace(?![A-Za-z])|\})")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_LATEX_BLOCK = re.compile(r"\\begin\b")


@dataclass(frozen=True, slots=True)
class Collection:
    """Several values.

    Attributes:
        brackets: ``()``, ``[)``, ...; ``{}`` also for a list without any, whose order is free.
        parts: LaTeX of each.
    """

    brackets: str
    parts: tuple[str, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts says something."""
        return self.brackets not in ("{}", "cup")


def collection(body: str) -> Collection | None:
    """The collection that ``body`` is; None for a single value, or what is no such thing."""
    if _LATEX_BLOCK.search(body):
        return None
    text = _CLOSING_BRACES.sub("\x02", _BRACES.sub("\x01", body)).strip()
    pieces = _split(_CUP.sub("\x03", text), "\x03")
    if len(pieces) > 1:
        return Collection("cup", tuple(map(_restored, pieces)))
    brackets, inner = _bracketed(text)
    parts = [one for part in _split(inner, ",;") for one in _signs(part, free=brackets == "{}")]
    if not all(part.strip() for part in parts):
        return None
    if len(parts) < 2 and not (text.startswith("\x01") and inner != text):
        return None
    return Collection(brackets, tuple(map(_restored, parts)))


def _bracketed(text: str) -> tuple[str, str]:
    """The brackets around the whole of a text, and what is between them."""
    if text[:1] in ("{", "\x01") and text[-1:] in ("}", "\x02") and _is_whole(text):
        return "{}", text[1:-1]
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _is_whole(text):
        return text[0] + text[-1], text[1:-1]
    return "{}", text


def _is_whole(text: str) -> bool:
    """Whether the first bracket closes at the end and not before."""
    depth = 0
    for place, character in enumerate(text):
        depth += _change(character)
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str, separators: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += _change(character)
        if depth == 0 and character in separators:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _change(character: str) -> int:
    return (character in _OPENS + "\x01") - (character in _CLOSES + "\x02")


def _signs(part: str, *, free: bool) -> list[str]:
    """Both values of a part with one plus-minus, where the order of values is free."""
    if not free or len(_PM.findall(part)) != 1:
        return [part]
    return [_PM.sub(" + ", part), _PM.sub(" - ", part)]


def _restored(text: str) -> str:
    return text.replace("\x01", r"\{").replace("\x02", r"\}").replace("\x03", r"\cup ").strip()
