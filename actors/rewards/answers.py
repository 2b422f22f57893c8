"""Exact match, F1 and containment of a submitted answer against gold answers.

Two texts are compared by their words (``common/text_tokens.py``), which every script has, without
English articles. An answer without any words matches nothing, so that "" or "!!!" can never equal a
gold answer by accident; one of symbols such as an emoji matches the same symbols. Punctuation
inside of words is written in more than one way, so a text has three readings, and answers are equal
if one reading of each is:

* initials joined, other punctuation a space: ``U.S.-based`` is ``us based``;
* punctuation between letters left out, as SQuAD does: ``O'Neill`` is ``oneill``, ``1 000`` 1000;
* every punctuation a space: ``J.K. Rowling`` is ``j k rowling``.

Articles also count where they are all that is left (``The The``), at the end (``Vitamin A``), and
if they only look like one once accents are off (``thé``). Dates are equal however they are written
(``actors/rewards/dates.py``). Different currencies are different answers, none and one are not.
Of a long text only the beginning is compared.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from actors.rewards.dates import CalendarDate, parse_date
from actors.rewards.overlap import token_f1
from common.text_tokens import (
    LETTER,
    WORD_CHARACTER,
    fold,
    join_initials,
    scan,
    without_accents,
)

MAX_CHARACTERS = 4096
"""Longer texts are cut."""
_MAX_FOLDED = 4 * MAX_CHARACTERS  # NFKC may make 18 characters of one

_ARTICLES = frozenset({"a", "an", "the"})
_SPECIAL = frozenset({"yes", "no", "noanswer"})

_GROUPS = re.compile(
    r"(?<![\w.,'])(?:\d{1,3}(?:[ _']\d{3})++|\d{1,3}(?:\.\d{3}){2,}+)(?!\w|[ .,_']\d)"
)
_CARET = re.compile(rf"(?<={LETTER})\^(?=\d)")
_JOINTS = "".join(sorted(set(string.punctuation) - set("+^<>%#")))
_IN_WORD = re.compile(
    rf"(?<={LETTER})[{re.escape(_JOINTS)}]++(?={WORD_CHARACTER})"
    rf"|(?<={WORD_CHARACTER})[{re.escape(_JOINTS)}]++(?={LETTER})"
)


@dataclass(frozen=True, slots=True)
class _Wording:
    """The words of a text in one reading.

    Attributes:
        all: every word, without accents.
        content: without articles; empty where there is nothing else.
    """

    all: tuple[str, ...]
    content: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What F1 counts."""
        return self.content or self.all


def normalise(answer: str) -> str:
    """The words in which answers are compared, in the first of their readings."""
    return " ".join(tokens(answer))


def tokens(answer: str) -> list[str]:
    """The words of a normalised answer; each character of Han, Kana and Thai is one."""
    return list(_readings(answer[:MAX_CHARACTERS])[0].words)


def can_be_matched(gold: str) -> bool:
    """Whether any answer could equal ``gold``: it is not too long, and it has a word or symbol."""
    return len(gold) <= MAX_CHARACTERS and bool(tokens(gold))


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the answer equals one of the gold answers in one of their readings, else 0.0."""
    return float(any(_equal(answer, one) for one in gold))


def contains(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the words of a gold answer occur in the answer in a row: the lenient judge."""
    return float(any(_equal(answer, one) or _holds(answer, one) for one in gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Token F1 against the best gold answer; 0 if yes/no/noanswer is on one side only.

    Source: the HotpotQA evaluation script (Yang et al. 2018), over the words of the reading that
    agrees best. 1.0 where the answers are equal.
    """
    return max((_f1(answer, one) for one in gold), default=0.0)


def forms(text: str) -> frozenset[tuple[str, ...] | CalendarDate]:
    """All that a text may equal another by: its words in each reading, and the date that it is."""
    readings = _readings(text[:MAX_CHARACTERS])
    words = {form for one in readings for form in (one.all, one.content) if form}
    date = parse_date(text)
    return frozenset(words if date is None else {*words, date})


def _equal(answer: str, gold: str) -> bool:
    return not forms(answer).isdisjoint(forms(gold)) and not _clash(answer, gold)


def _holds(answer: str, gold: str) -> bool:
    """Whether the words of ``gold`` stand in ``answer`` in a row, in one reading of both."""
    for given, wanted in _pairs(answer, gold):
        # An article that stands for itself, such as a gold "A", is looked for as one only.
        whole = wanted.all if len(wanted.all) > 1 or not wanted.content else ()
        if _in_a_row(wanted.content, given.content) or _in_a_row(whole, given.all):
            return True
    return False


def _in_a_row(wanted: tuple[str, ...], given: tuple[str, ...]) -> bool:
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(given)} "


def _f1(answer: str, gold: str) -> float:
    if _equal(answer, gold):
        return 1.0
    pairs = _pairs(answer, gold)
    if any(len(one.words) == 1 and one.words[0] in _SPECIAL for one in pairs[0]):
        return 0.0
    clash = _clash(answer, gold)
    mine, theirs = (_currencies(answer), _currencies(gold)) if clash else ((), ())
    return max(token_f1((*a.words, *mine), (*b.words, *theirs)) for a, b in pairs)


def _clash(answer: str, gold: str) -> bool:
    """Whether both name a currency by its sign, and none that the other names."""
    mine, theirs = _currencies(answer), _currencies(gold)
    return bool(mine and theirs) and set(mine).isdisjoint(theirs)


def _currencies(text: str) -> tuple[str, ...]:
    shown = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS])[:MAX_CHARACTERS]
    return tuple(sorted({c for c in shown if unicodedata.category(c) == "Sc"}))


def _pairs(answer: str, gold: str) -> list[tuple[_Wording, _Wording]]:
    mine, theirs = _readings(answer[:MAX_CHARACTERS]), _readings(gold[:MAX_CHARACTERS])
    return list(zip(mine, theirs, strict=True))


@lru_cache(1024)  # the same gold answers come with every trajectory of a group
def _readings(text: str) -> tuple[_Wording, ...]:
    """``text`` in the three readings, in the order of the module's list."""
    folded = fold(text)[:_MAX_FOLDED]
    named = join_initials(folded)
    readings = tuple(_reading(scan(one)) for one in (named, _joined(named), folded))
    return readings if readings[0].all else (_reading(_symbols(text)),) * len(readings)


def _symbols(text: str) -> list[str]:
    """The symbols beyond ASCII, such as emoji: what an answer without any word may be."""
    return [c for c in text if not c.isascii() and unicodedata.category(c) in ("So", "Sm")]


def _joined(folded: str) -> str:
    grouped = _GROUPS.sub(lambda found: re.sub(r"[ _'.]", "", found.group()), folded)
    return _IN_WORD.sub("", _CARET.sub("", grouped))


def _reading(words: Sequence[str]) -> _Wording:
    bare = tuple(map(without_accents, words))
    last = len(bare) - 1
    content = tuple(
        word if plain in _ARTICLES else plain
        for place, (word, plain) in enumerate(zip(words, bare, strict=True))
        if word not in _ARTICLES or (word == "a" and place == last)
    )
    return _Wording(bare, content)
