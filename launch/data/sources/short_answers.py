"""Records of a question and its short answers: NQ-open, TriviaQA, PopQA, SimpleQA, Bamboogle."""

import ast
from typing import Any

from launch.data.sources.entries import Entry, Passage, Unusable
from launch.data.sources.fields import (
    golds,
    identity,
    is_nothing,
    listing,
    string,
    table,
    titles_label,
)
from launch.data.sources.multihop import context, supporting_titles
from launch.data.sources.reading import Row

_WITHHELD = "<unk>"
"""TriviaQA's test split has this for an answer."""

_CONTEXTS = (("entity_pages", "wiki_context"), ("search_results", "search_context"))


def nq_open(row: Row) -> Entry:
    """``answer`` is a list. Source: Lee et al. 2019, arXiv:1906.00300."""
    return Entry(
        source="nq",
        original_id=identity(row, "id"),
        question=string(row, "question"),
        golds=golds(row["answer"], "answer"),
    )


def triviaqa(row: Row) -> Entry | Unusable:
    """``answer`` is an object of a value and its aliases, in the hub's names or the original's.

    Source: Joshi et al. 2017, arXiv:1705.03551.
    """
    given: Row = row["answer"] if "answer" in row else row["Answer"]
    small = {str(name).casefold(): value for name, value in given.items()}
    if small.get("value") == _WITHHELD:
        return Unusable(f"its answer is withheld ({_WITHHELD})")
    return Entry(
        source="triviaqa",
        original_id=identity(row, "question_id", "QuestionId"),
        question=string(row, "question" if "question" in row else "Question"),
        golds=(
            *golds(small.get("value"), "answer.value"),
            *golds(listing(small, "aliases"), "answer.aliases"),
        ),
        passages=tuple(page for field, text in _CONTEXTS for page in _pages(row, field, text)),
    )


def _pages(row: Row, field: str, text: str) -> list[Passage]:
    """Whole pages that the hub's ``rc`` configurations carry, as two lists of one length."""
    if not isinstance(row.get(field), dict):
        return []
    titles, texts = listing(row[field], "title"), listing(row[field], text)
    return [(str(t), str(body)) for t, body in zip(titles, texts, strict=False) if t and body]


def popqa(row: Row) -> Entry:
    """``possible_answers`` is a list that is mostly written as JSON in a text; ``obj`` is first.

    Source: Mallen et al. 2023, arXiv:2212.10511.
    """
    possible = golds(listing(row, "possible_answers"), "possible_answers")
    object_name = () if is_nothing(row.get("obj")) else golds(row["obj"], "obj")
    return Entry(
        source="popqa",
        original_id=identity(row, "id"),
        question=string(row, "question"),
        golds=(*object_name, *possible),
        labels={"type": prop} if isinstance(prop := row.get("prop"), str) else {},
    )


def simpleqa(row: Row) -> Entry:
    """The original table, whose ``metadata`` is a Python dict in a text, and its verified subset.

    Source: Wei et al. 2024, arXiv:2411.04368.
    """
    said = _python_dict(row.get("metadata")) or row
    return Entry(
        source="simpleqa",
        original_id=identity(row, "id", "original_index"),
        question=string(row, "problem"),
        golds=golds(row["answer"], "answer"),
        labels={
            name: said[key]
            for name, key in (("topic", "topic"), ("type", "answer_type"))
            if isinstance(said.get(key), str)
        },
    )


def _python_dict(text: Any) -> dict[str, Any]:
    """What a table's cell says; nothing where it is no such text."""
    try:
        value = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def bamboogle(row: Row) -> Entry:
    """The columns of its published table. Source: Press et al. 2022, arXiv:2210.03350."""
    return Entry(
        source="bamboogle",
        question=string(row, "Question"),
        golds=golds(row["Answer"], "Answer"),
    )


def flashrag(row: Row) -> Entry:
    """``golden_answers``; what else the original set had is in ``metadata``. Names no source.

    Source: Jin et al. 2024, arXiv:2405.13576.
    """
    said = table(row, "metadata")
    return Entry(
        original_id=identity(row, "id"),
        question=string(row, "question"),
        golds=golds(row["golden_answers"], "golden_answers"),
        labels=titles_label(supporting_titles(said)),
        passages=context(said),
    )
