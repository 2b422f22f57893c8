"""Exact match and F1 of a submitted answer against gold answers.

Normalisation keeps every script: NFKC, case folding, punctuation and symbols removed (but signs,
decimal points and percent signs inside numbers stay), accents of Latin letters removed, English
articles removed, white space collapsed. An answer that normalises to nothing matches nothing, so
that "" or "!!!" can never equal a gold answer by accident.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?%?")
_SPECIAL = frozenset({"yes", "no", "noanswer"})


def normalise(answer: str) -> str:
    """The canonical form in which answers are compared."""
    text = unicodedata.normalize("NFKC", answer).casefold()
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


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the answer equals one of the gold answers after normalisation, else 0.0."""
    given = normalise(answer)
    return float(bool(given) and any(given == normalise(one) for one in gold))


def contains(answer: str, gold: Sequence[str]) -> float:
    """1.0 if a gold answer occurs as whole words in the answer: the lenient judge."""
    given = f" {normalise(answer)} "
    return float(any(f" {form} " in given for form in map(normalise, gold) if form))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Token F1 against the best gold answer; 0 if yes/no/noanswer is on one side only.

    Source: the HotpotQA evaluation script (Yang et al. 2018), over ``normalise`` tokens.
    """
    return max((_f1(normalise(answer), normalise(one)) for one in gold), default=0.0)


def _f1(given: str, gold: str) -> float:
    if not given or not gold or (given != gold and (given in _SPECIAL or gold in _SPECIAL)):
        return 0.0
    given_tokens, gold_tokens = given.split(), gold.split()
    common = (Counter(given_tokens) & Counter(gold_tokens)).total()
    if not common:
        return 0.0
    precision, recall = common / len(given_tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)
