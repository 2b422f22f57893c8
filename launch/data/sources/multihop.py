"""Records that carry passages around their question: HotpotQA, 2WikiMultihopQA, MuSiQue."""

from launch.data.sources.entries import Entry, Passage, Unusable
from launch.data.sources.fields import (
    golds,
    identity,
    joined,
    listing,
    pairs,
    string,
    titles_label,
)
from launch.data.sources.reading import Row

_SENTENCES = ("sentences", "content")
_FACTS = ("sent_id",)


def hotpotqa(row: Row) -> Entry:
    """The original and the hub's shape: ``context`` and ``supporting_facts`` as pairs or lists.

    Source: Yang et al. 2018, arXiv:1809.09600.
    """
    return Entry(
        source="hotpotqa",
        original_id=identity(row, "_id", "id"),
        question=string(row, "question"),
        golds=golds(row["answer"], "answer"),
        labels={
            "type": str(row.get("type") or ""),
            "level": str(row.get("level") or ""),
            **titles_label(supporting_titles(row)),
        },
        passages=context(row),
    )


def two_wiki(row: Row) -> Entry:
    """As HotpotQA, with ``evidences``; its four types are its families.

    Source: Ho et al. 2020, arXiv:2011.01060.
    """
    kind = str(row.get("type") or "")
    return Entry(
        source="2wiki",
        original_id=identity(row, "_id", "id"),
        question=string(row, "question"),
        golds=golds(row["answer"], "answer"),
        family=kind,
        labels={"type": kind, **titles_label(supporting_titles(row))},
        passages=context(row),
    )


def musique(row: Row) -> Entry | Unusable:
    """Aliases are golds, too; the number of hops, with which its ids begin, is its family.

    Source: Trivedi et al. 2022, arXiv:2108.00573; MuSiQue-Full has questions without an answer.
    """
    if row.get("answerable") is False:
        return Unusable("unanswerable (answerable is false)")
    paragraphs = [_paragraph(item) for item in listing(row, "paragraphs")]
    original_id = identity(row, "id")
    aliases = golds(listing(row, "answer_aliases"), "answer_aliases")
    return Entry(
        source="musique",
        original_id=original_id,
        question=string(row, "question"),
        golds=(*golds(row["answer"], "answer"), *aliases),
        family=original_id.split("_")[0] if original_id else "",
        labels=titles_label([string(p, "title") for p in paragraphs if p.get("is_supporting")]),
        passages=tuple((string(p, "title"), string(p, "paragraph_text")) for p in paragraphs),
    )


def supporting_titles(row: Row) -> list[str]:
    """Titles that ``supporting_facts`` names, with repeats.

    Raises:
        ValueError: it is neither pairs nor an object of two lists.
    """
    return [title for title, _ in pairs(row, "supporting_facts", _FACTS)]


def context(row: Row) -> tuple[Passage, ...]:
    """The passages of ``context``.

    Raises:
        ValueError: it is neither pairs nor an object of two lists, or a page is no text.
    """
    return tuple((title, joined(lines)) for title, lines in pairs(row, "context", _SENTENCES))


def _paragraph(item: object) -> Row:
    if not isinstance(item, dict):
        raise ValueError(f"field 'paragraphs' must hold objects, got {item!r:.60}")
    return item
