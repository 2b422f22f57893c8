"""Exact match and F1 of a submitted answer against gold answers.

Normalisation keeps every script: NFKC, case folding, punctuation and symbols removed (but signs,
decimal points and percent signs inside numbers stay), accents of Latin letters removed, English
articles removed, white space collapsed. An answer that normalises to nothing matches nothing, so
that "" or "!!!" can never equal a gold answer by accident. Tokens are words, but single characters
in scripts that are written without spaces. Of a long text only the beginning is compared.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from actors.rewards.overlap import token_f1

MAX_CHARACTERS = 4096
"""Longer texts are cut, before and after NFKC, which may make 18 characters of one."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?%?")
_THAI, _KANA = "\u0e01-\u0e5b", "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = _THAI + _KANA + _HAN
_TOKEN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}\\s]+")
_SPECIAL = frozenset({"yes", "no", "noanswer"})


def normalise(answer: str) -> str:
    """The canonical form in which answers are compared."""
    return _normalise(answer[:MAX_CHARACTERS])


def can_be_matched(gold: str) -> bool:
    """Whether any answer could equal ``gold``: it is not too long, and something is left of it."""
    return len(gold) <= MAX_CHARACTERS and bool(normalise(gold))


@lru_cache(1024)  # the same gold answers come with every trajectory of a group
def _normalise(answer: str) -> str:
    text = unicodedata.normalize("NFKC", answer)[:MAX_CHARACTERS].casefold()[:MAX_CHARACTERS]
    parts: list[str] = []
    end = 0
    for number in _NUMBER.finditer(text):
        start = number.start()
        joined = start > 0 and text[start - 1].isalnum()
        parts.append(_strip(text[end:start]))
        parts.append(_number(number.group(), joined=joined))
        end = number.end()
    parts.append(_strip(text[end:]))
    return " ".join(_ARTICLES.sub(" ", "".join(parts)).split())


def _number(text: str, *, joined: bool) -> str:
    sign = text[0] if text[0] in "-+" else ""
    digits = text.removeprefix(sign).replace(",", "")
    if joined:
        return (" " if sign else "") + digits
    return ("-" if sign == "-" else "") + digits


def _strip(text: str) -> str:
    kept: list[str] = []
    latin = False
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if category == "Mn":
            if not latin:
                kept.append(character)
            continue
        latin = "LATIN" in unicodedata.name(character, "")
        kept.append(" " if category[0] in "PSZC" else character)
    return unicodedata.normalize("NFC", "".join(kept))


def tokens(answer: str) -> list[str]:
    """The words of a normalised answer; each character of Han, Kana and Thai is one."""
    return _TOKEN.findall(normalise(answer))


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the answer equals one of the gold answers after normalisation, else 0.0."""
    given = normalise(answer)
    return float(bool(given) and any(given == normalise(one) for one in gold))


def contains(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the tokens of a gold answer occur in the answer in a row: the lenient judge."""
    given = f" {' '.join(tokens(answer))} "
    return float(any(f" {' '.join(form)} " in given for form in map(tokens, gold) if form))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Token F1 against the best gold answer; 0 if yes/no/noanswer is on one side only.

    Source: the HotpotQA evaluation script (Yang et al. 2018), over ``tokens``.
    """
    return max((_f1(tokens(answer), tokens(one)) for one in gold), default=0.0)


def _f1(given: list[str], gold: list[str]) -> float:
    if given != gold and (_is_special(given) or _is_special(gold)):
        return 0.0
    return token_f1(given, gold)


def _is_special(words: list[str]) -> bool:
    return len(words) == 1 and words[0] in _SPECIAL
