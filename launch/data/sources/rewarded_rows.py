"""Rows for reinforcement learning: verl's and Search-R1's, and those of L0's published set.

All keep the gold answer in ``reward_model.ground_truth``. Where the row also has the gold answers
as a list, that is taken: the text may be all of them, joined by commas.
"""

from typing import Any

from actors.rewards.numeric import parse_number
from launch.data.sources.entries import Entry, Unusable, source_name
from launch.data.sources.fields import golds, identity, listing, string, table
from launch.data.sources.reading import Row

_MATHS = {"deepmath", "math500"}
_NUMBERS = {"gsm8k", "aime"}
_IN_PROMPT = "prompt"


def rewarded(row: Row) -> Entry | Unusable:
    """One row. Its id counts only together with the set that it is from.

    Raises:
        ValueError: no question, or no gold answer in one of the known places.
    """
    ability = str(row.get("ability") or "").casefold()
    if "code" in ability:
        return Unusable("its reward is a program's tests (ability 'code')")
    extra = table(row, "extra_info")
    source = source_name(str(row.get("data_source") or row.get("source") or ""))
    question, place = _question(row, extra)
    found = _golds(row, extra)
    return Entry(
        source=source,
        original_id=identity(row, "id") or _index(extra),
        question=question,
        golds=found,
        kind=_kind(source, ability, found),
        labels={"question_from": place} if place == _IN_PROMPT else {},
    )


def _question(row: Row, extra: Row) -> tuple[str, str]:
    """The plain question and where it stood; last of all the prompt, instructions included."""
    for place, fields in (("question", row), ("extra_info", extra)):
        if isinstance(fields.get("question"), str) and fields["question"].strip():
            return string(fields, "question").strip(), place
    messages = [m for m in listing(row, "prompt") if isinstance(m, dict)]
    asked = [m for m in messages if m.get("role") == "user"]
    if not asked:
        raise ValueError("no question in 'question', 'extra_info.question' or 'prompt'")
    return string(asked[-1], "content").strip(), _IN_PROMPT


def _golds(row: Row, extra: Row) -> tuple[str | None, ...]:
    for place, value in (
        ("golden_answers", row.get("golden_answers")),
        ("extra_info.answer", extra.get("answer")),
    ):
        if isinstance(value, list) and value:
            return golds(value, place)
    truth: Any = table(row, "reward_model").get("ground_truth")
    if isinstance(truth, dict):
        if "target" not in truth:
            raise ValueError(
                "field 'reward_model.ground_truth' must be a text, a list or an object with "
                f"'target', got one with {sorted(truth)}"
            )
        truth = truth["target"]
    return golds(truth, "reward_model.ground_truth")


def _index(extra: Row) -> str | None:
    """The number of a row in its split; a split's name keeps train and test apart."""
    number, split = identity(extra, "index"), extra.get("split")
    return f"{split}_{number}" if number is not None and isinstance(split, str) else None


def _kind(source: str, ability: str, found: tuple[str | None, ...]) -> str:
    if source in _NUMBERS and any(gold and parse_number(gold) is not None for gold in found):
        return "number"
    return "math" if source in _MATHS | _NUMBERS or ability.startswith("math") else "qa"
