"""Makes tasks of what records say, and keeps account of what could not become part of one."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.rewards.answers import MAX_CHARACTERS
from actors.rewards.task_types import task_type
from common.wire.records import Task
from launch.data.sources.entries import Entry, family_of_source

_HASH_DIGITS = 16
_UNMATCHABLE = {"qa": "nothing but punctuation", "number": "no number", "date": "no date"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A question or a gold answer that did not become part of a task."""

    where: str
    reason: str
    gold: str | None = None
    """The gold answer, whose question has others; None where all of the question is left out."""


def tasks_of(entries: Sequence[tuple[str, Entry]]) -> tuple[list[Task], list[LeftOut]]:
    """The tasks of entries, each with where it stands, and what is left out of them.

    Ids are ``SOURCE-ID``, or end in a hash of question and answers where the set has no ids, or one
    of them stands for several questions: in no case do they depend on the order of a file.
    """
    ambiguous = _ambiguous_ids([entry for _, entry in entries])
    tasks: dict[str, Task] = {}
    left_out: list[LeftOut] = []
    for where, entry in entries:
        golds, refused = _sorted_golds(entry)
        task_id = _task_id(entry, is_ambiguous=_named(entry) in ambiguous)
        if not golds:
            reasons = ", ".join(dict.fromkeys(reason for _, reason in refused)) or "there is none"
            left_out.append(LeftOut(where, f"without a usable gold answer: {reasons}"))
        elif not entry.question.strip():
            left_out.append(LeftOut(where, "with an empty question"))
        elif task_id in tasks:
            left_out.append(LeftOut(where, "repeated"))
        else:
            left_out += [LeftOut(where, reason, gold) for gold, reason in refused]
            tasks[task_id] = _task(task_id, entry, golds)
    return list(tasks.values()), left_out


def said_of(left_out: Iterable[LeftOut], *, golds: bool) -> str:
    """How many questions, or gold answers of others, were left out and why, with one of each."""
    chosen = [one for one in left_out if (one.gold is not None) == golds]
    first = {one.reason: one for one in reversed(chosen)}
    counts = Counter(one.reason for one in chosen)
    return "; ".join(
        f"{count} {reason} (first: {_place(first[reason])})"
        for reason, count in counts.most_common()
    )


def _place(one: LeftOut) -> str:
    return one.where if one.gold is None else f"{one.where}: {one.gold[:40]!r}"


def _sorted_golds(entry: Entry) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Usable gold answers, each once, and the others with the reason."""
    reasons = {gold: _fault(gold, entry.kind) for gold in entry.golds}
    good = tuple(gold for gold, reason in reasons.items() if gold is not None and not reason)
    return good, [(str(gold), reason) for gold, reason in reasons.items() if reason]


def _fault(gold: str | None, kind: str) -> str:
    """Why nothing could match a gold answer; empty where something could."""
    if gold is None:
        return "null"
    if not gold.strip():
        return "empty"
    if kind == "qa" and len(gold) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if not task_type(kind).can_match(gold):
        return _UNMATCHABLE.get(kind, f"nothing that kind {kind!r} could match")
    return ""


def _task(task_id: str, entry: Entry, golds: tuple[str, ...]) -> Task:
    return Task(
        task_id=task_id,
        question=entry.question,
        answers=golds,
        labels={
            "family": entry.family or family_of_source(entry.source),
            "source": entry.source,
            **entry.labels,
        },
        kind=entry.kind,
        details=dict(entry.details),
    )


def _task_id(entry: Entry, *, is_ambiguous: bool) -> str:
    named = _named(entry)
    if entry.original_id is not None and not is_ambiguous:
        return named
    said = json.dumps([entry.question, entry.golds], ensure_ascii=False).encode()
    return f"{named}-{hashlib.sha256(said).hexdigest()[:_HASH_DIGITS]}"


def _named(entry: Entry) -> str:
    """Source and id; the source alone where there is no id."""
    if entry.original_id is None:
        return entry.source
    prefix = f"{entry.source}-"
    return prefix + entry.original_id.removeprefix(prefix)


def _ambiguous_ids(entries: Sequence[Entry]) -> set[str]:
    """Names that stand for several questions, as where files were laid end to end."""
    questions: dict[str, set[str]] = {}
    for entry in entries:
        questions.setdefault(_named(entry), set()).add(entry.question)
    return {name for name, asked in questions.items() if len(asked) > 1}
