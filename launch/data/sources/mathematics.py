"""Records of mathematics: GSM8K, MATH and its subset of 500, AIME, DeepMath."""

import re

from actors.rewards.numeric import parse_number
from launch.data.sources.entries import Entry, Unusable
from launch.data.sources.fields import golds, identity, string
from launch.data.sources.reading import Row

GSM8K_MARK = "####"
"""Before the gold number, after the worked solution."""

_BOXED = "\\boxed{"
_DIGITS = re.compile(r"\d{1,3}")


def gsm8k(row: Row) -> Entry:
    """The number after the last mark. Source: Cobbe et al. 2021, arXiv:2110.14168.

    Raises:
        ValueError: there is no mark.
    """
    solution = string(row, "answer")
    _, mark, gold = solution.rpartition(GSM8K_MARK)
    if not mark:
        raise ValueError(f"field 'answer' has no '{GSM8K_MARK}' before a number")
    return Entry(
        source="gsm8k",
        original_id=identity(row, "id"),
        question=string(row, "question"),
        golds=(gold.strip(),),
        kind="number",
    )


def competition(row: Row) -> Entry | Unusable:
    """MATH and sets like it: ``problem`` with ``answer``, or boxed at the end of ``solution``.

    Source: Hendrycks et al. 2021, arXiv:2103.03874; the 500: Lightman et al. 2023,
    arXiv:2305.20050.
    """
    answer = golds(row["answer"], "answer") if "answer" in row else (last_boxed(row),)
    if answer == (None,):
        return Unusable("no answer in 'answer', and none boxed in 'solution'")
    subject = row.get("subject") or row.get("type")
    is_part = "subject" in row and "answer" in row
    labels = {"type": str(subject or ""), "level": str(row.get("level") or "")}
    return Entry(
        source="math500" if is_part else "",
        original_id=identity(row, "unique_id", "id"),
        question=string(row, "problem"),
        golds=answer,
        kind="math",
        family=str(subject or ""),
        labels={name: text for name, text in labels.items() if text},
    )


def last_boxed(row: Row) -> str | None:
    r"""What the last ``\boxed{...}`` of a solution holds, braces inside of it balanced."""
    _, mark, rest = string(row, "solution").rpartition(_BOXED)
    depth = 1
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:place] if mark else None
    return None


def aime(row: Row) -> Entry:
    """Whole numbers up to 999, in any of the tables that are about; small or capital names."""
    small = {name.casefold(): value for name, value in row.items()}
    found = golds(small["answer"], "answer")
    is_number = all(gold is not None and parse_number(gold) is not None for gold in found)
    return Entry(
        source="aime",
        original_id=identity(small, "id", "unique_id"),
        question=string(small, "problem" if "problem" in small else "question"),
        golds=found,
        kind="number" if is_number else "math",
        labels={"year": str(year)} if (year := small.get("year")) else {},
    )


def looks_like_aime(row: Row) -> bool:
    """Whether a record has AIME's fields and its answer is a whole number of up to three digits."""
    small = {name.casefold(): value for name, value in row.items()}
    asked = ("problem" in small and {"year", "url"} & set(small)) or {
        "question", "problem number", "year",
    } <= set(small)  # fmt: skip
    is_capital = {"Problem", "Answer"} <= set(row)
    answer = str(small.get("answer", "")).strip()
    return bool(asked or is_capital) and _DIGITS.fullmatch(answer) is not None


def deepmath(row: Row) -> Entry:
    """``final_answer``, as LaTeX. Source: He et al. 2025, arXiv:2504.11456."""
    return Entry(
        source="deepmath",
        question=string(row, "question"),
        golds=golds(row["final_answer"], "final_answer"),
        kind="math",
        labels={"type": topic} if isinstance(topic := row.get("topic"), str) else {},
    )
