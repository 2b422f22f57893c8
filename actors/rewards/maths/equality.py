"""Whether an answer states what a gold answer states; see ``equal_answers``."""

import re
from collections.abc import Callable, Sequence

from actors.rewards.maths.exact import based, equal_exactly
from actors.rewards.maths.structure import Collection, collection
from actors.rewards.maths.written import read

Formulas = Callable[[str, str], bool]
"""Whether a given formula equals a gold one, both in LaTeX."""

_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)")
_CHOSEN = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")
_TEXT = re.compile(r"\\text\s*\{\s*([^{}]*?)\s*\.?\s*\}")
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[ '-]+[^\W\d_]+)*\.?")
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?)\s*(?:=|\\in(?![A-Za-z]))(?P<value>[^=<>]+)"
)
_MOST_PARTS = 64


def equal_answers(given: str, gold: str, formulas: Formulas) -> bool:
    """Whether the answer ``given`` equals ``gold``.

    Text comes first, then what can be compared exactly (choices, words, numbers, digits of another
    base, collections part by part), and ``formulas`` for the rest. Without a unit the answer is
    taken in the gold one's; another unit is another answer.
    """
    left, right = read(given), read(gold)
    if not left.body or not right.body:
        return False
    if left.unit and left.unit != right.unit and (right.unit or _is_choice(right.body)):
        return False
    return _equal_values(left.body, right.body, formulas)


def same_text(given: str, gold: str) -> bool:
    """Whether both state the same in the same way, which needs nothing else."""
    left, right = read(given), read(gold)
    return bool(left.body) and (left.compact, left.unit) == (right.compact, right.unit)


def _equal_values(given: str, gold: str, formulas: Formulas) -> bool:
    if "".join(given.split()) == "".join(gold.split()):
        return True
    left, right = _values(given, gold)
    if (left, right) != (given, gold):
        return _equal_values(left, right, formulas)
    exact = _equal_words(given, gold)
    exact = _equal_digits(given, gold) if exact is None else exact
    if exact is not None:
        return exact
    many, wanted = collection(given), collection(gold)
    if many and wanted:
        return _equal_collections(many, wanted, formulas) or (
            "cup" in (many.brackets, wanted.brackets) and formulas(given, gold)
        )
    if many or (wanted and wanted.brackets == "{}"):
        return False
    return _is_equation(given) == _is_equation(gold) and formulas(given, gold)


def _equal_words(given: str, gold: str) -> bool | None:
    """Whether a choice or words are the same; None where the gold answer is a formula."""
    bare, wanted = _TEXT.sub(r"\1", given), _TEXT.sub(r"\1", gold)
    if choice := _CHOICE.fullmatch(wanted):
        chosen = _CHOSEN.fullmatch(bare)
        return chosen is not None and chosen.group(1).upper() == choice.group(1).upper()
    if _TEXT.fullmatch(gold) or _WORDS.fullmatch(gold):
        return _plain(bare) == _plain(wanted)
    return None


def _is_choice(gold: str) -> bool:
    return _CHOICE.fullmatch(_TEXT.sub(r"\1", gold)) is not None


def _plain(words: str) -> str:
    return " ".join(words.casefold().rstrip(". ").split())


def _equal_digits(given: str, gold: str) -> bool | None:
    left, right = based(given), based(gold)
    if left or right:
        return left == right
    return equal_exactly(given, gold)


def _values(given: str, gold: str) -> tuple[str, str]:
    """Both without ``x =`` in front, where only one has it or both have the same."""
    left, right = _ASSIGNED.fullmatch(given.strip()), _ASSIGNED.fullmatch(gold.strip())
    if left and right and left.group("name") != right.group("name"):
        return given, gold
    if bool(left) != bool(right) and _is_relation(gold if left else given):
        return given, gold
    return (
        left.group("value").strip() if left else given,
        right.group("value").strip() if right else gold,
    )


def _is_relation(body: str) -> bool:
    return re.search(r"[=<>]|\\(?:le|ge|ne)(?![A-Za-z])", body) is not None


def _is_equation(body: str) -> bool:
    return re.search(r"(?<![\\<>!])=", body) is not None


def _names(parts: Sequence[str]) -> set[str]:
    return {found.group("name") for part in parts if (found := _ASSIGNED.fullmatch(part))}


def _equal_collections(given: Collection, gold: Collection, formulas: Formulas) -> bool:
    if given.brackets != gold.brackets or len(given.parts) != len(gold.parts):
        return False
    if len(gold.parts) > _MOST_PARTS:
        return False
    names = sorted((_names(given.parts), _names(gold.parts)), key=len)
    if len(names[1]) > 1 and not names[0]:
        return False
    if gold.is_ordered:
        pairs = zip(given.parts, gold.parts, strict=True)
        return all(_equal_values(one, other, formulas) for one, other in pairs)
    return _matched(given.parts, gold.parts, formulas)


def _matched(given: Sequence[str], gold: Sequence[str], formulas: Formulas) -> bool:
    """Whether each part of one equals a part of its own of the other; equality is transitive."""
    left = list(given)
    for wanted in gold:
        found = next((one for one in left if _equal_values(one, wanted, formulas)), None)
        if found is None:
            return False
        left.remove(found)
    return True
