"""Converts published question sets into task and corpus files; see docs/tasks.md."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from actors.rewards.answers import can_be_matched
from common.errors import InputError
from common.json_input import numbered_lines, parse_json, read_text
from common.tasks import write_tasks
from common.wire.records import Task

T = TypeVar("T")
Page = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """How many tasks and pages were written, and how many questions could not be scored."""

    tasks: int
    pages: int
    unscorable: int = 0


def convert(file: Path, kind: str, *, corpus: Path | None, out: Path) -> Converted:
    """Write ``tasks.jsonl`` and ``corpus.jsonl`` to ``out``.

    Gold answers that nothing can match (only punctuation and articles, or too long) are left out,
    and so is a question without any other.

    Args:
        file: the questions, a JSON list or JSON lines.
        kind: how they are written, one of ``_TASKS``.
        corpus: the passages, a JSON object of title to sentences, a list of ``{title, text}``, or
            JSON lines of those; None takes the passages that come with the questions.
        out: folder, made if missing.

    Raises:
        InputError: there is no such format, or a file is missing or not of that format; names the
            record and the field.
    """
    if kind not in _TASKS:
        raise InputError(f"--format must be one of {', '.join(_TASKS)}, got {kind!r}")
    records = list(_records(file))
    read_task = _TASKS[kind]
    tasks = [
        _guard(read_task, record, f"{file}, question {number}")
        for number, record in enumerate(records, start=1)
    ]
    if not tasks:
        raise InputError(f"{file} holds no questions")
    pages = list(_corpus_pages(corpus)) if corpus else _own_pages(file, records, kind)
    tasks = _with_unique_ids(tasks)
    scorable = [found for task in tasks if (found := _scorable(task)) is not None]
    out.mkdir(parents=True, exist_ok=True)
    write_tasks(scorable, out / "tasks.jsonl")
    _write_pages(pages, out / "corpus.jsonl")
    return Converted(tasks=len(scorable), pages=len(pages), unscorable=len(tasks) - len(scorable))


def _scorable(task: Task) -> Task | None:
    """The task with the gold answers that an answer could match; None if there are none."""
    answers = tuple(answer for answer in task.answers if can_be_matched(answer))
    return replace(task, answers=answers) if answers else None


def _hotpotqa(record: dict[str, Any], where: str) -> Task:
    facts = [_pair(fact, "supporting_facts") for fact in _list(record, "supporting_facts")]
    titles = list(dict.fromkeys(str(title) for title, _ in facts))
    return Task(
        task_id=_identity(record, ("_id", "id"), where),
        question=_string(record, "question"),
        answers=(_string(record, "answer"),),
        labels={
            "family": "two_hop",
            "source": "hotpotqa",
            "type": str(record.get("type", "")),
            "level": str(record.get("level", "")),
            "supporting_titles": json.dumps(titles, ensure_ascii=False),
        },
    )


def _musique(record: dict[str, Any], where: str) -> Task:
    aliases = [str(alias) for alias in _list(record, "answer_aliases")]
    supporting = [_string(p, "title") for p in _paragraphs(record) if p.get("is_supporting")]
    task_id = _identity(record, ("id",), where)
    return Task(
        task_id=task_id,
        question=_string(record, "question"),
        answers=tuple(dict.fromkeys([_string(record, "answer"), *aliases])),
        labels={
            "family": task_id.split("_")[0] if task_id != where else "musique",
            "source": "musique",
            "supporting_titles": json.dumps(list(dict.fromkeys(supporting)), ensure_ascii=False),
        },
    )


def _nq(record: dict[str, Any], where: str) -> Task:
    answers = record["answer"]
    answers = [answers] if isinstance(answers, str) else _list(record, "answer")
    return Task(
        task_id=_identity(record, ("id",), where),
        question=_string(record, "question"),
        answers=tuple(str(answer) for answer in answers),
        labels={"family": "one_hop", "source": "nq"},
    )


_TASKS: dict[str, Callable[[dict[str, Any], str], Task]] = {
    "hotpotqa": _hotpotqa,
    "musique": _musique,
    "nq": _nq,
}


def _guard(read: Callable[[dict[str, Any], str], T], record: dict[str, Any], where: str) -> T:
    """Read one record; what is wrong with it becomes an ``InputError`` that says where."""
    try:
        return read(record, f"question-{where.rsplit(' ', 1)[-1]}")
    except KeyError as error:
        raise InputError(
            f"{where}: field {error} is missing; is this the right --format?"
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{where}: {error}") from error


def _string(record: dict[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise TypeError(f"field '{key}' must be a string, got {value!r}")
    return value


def _list(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise TypeError(f"field '{key}' must be a list, got {value!r:.60}")
    return value


def _pair(value: Any, key: str) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"field '{key}' must hold lists of two, got {value!r:.60}")
    return value[0], value[1]


def _paragraphs(record: dict[str, Any]) -> list[dict[str, Any]]:
    for paragraph in (found := _list(record, "paragraphs")):
        if not isinstance(paragraph, dict):
            raise TypeError(f"field 'paragraphs' must hold objects, got {paragraph!r:.60}")
    return found


def _identity(record: dict[str, Any], keys: Sequence[str], otherwise: str) -> str:
    """The first id that there is, a number too; ``otherwise`` where there is none."""
    for key in keys:
        value = record.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise TypeError(f"field '{key}' must be a string or a number, got {value!r:.60}")
        return str(value)
    return otherwise


def _with_unique_ids(tasks: list[Task]) -> list[Task]:
    """The tasks without those that repeat an id (question sets do contain repeats)."""
    first = {task.task_id: task for task in reversed(tasks)}
    return [task for task in tasks if first[task.task_id] is task]


def _records(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list or of JSON lines."""
    for number, record in enumerate(_values(file), start=1):
        if not isinstance(record, dict):
            raise InputError(f"{file}, record {number}: expected a JSON object, got {record!r:.60}")
        yield record


def _values(file: Path) -> list[Any]:
    text = read_text(file, what="file")
    if text.lstrip().startswith("["):
        return list(parse_json(text, str(file), replace_surrogates=True))
    return [
        parse_json(line, f"{file}, line {number}", replace_surrogates=True)
        for number, line in numbered_lines(file, what="file")
    ]


def _corpus_pages(file: Path) -> Iterator[Page]:
    by_title = _titles_to_sentences(file)
    if by_title is not None:
        for title, sentences in by_title.items():
            yield title, _guard(_joined, sentences, f"{file}, page {title[:60]!r}")
        return
    for number, record in enumerate(_records(file), start=1):
        yield _page(record, f"{file}, page {number}")


def _page(record: dict[str, Any], where: str) -> Page:
    title = record.get("title")
    body = record.get("text", record.get("paragraph_text"))
    if not isinstance(title, str) or not isinstance(body, str):
        raise InputError(f"{where}: expected strings 'title' and 'text'")
    return title, body


def _titles_to_sentences(file: Path) -> dict[str, Any] | None:
    """The corpus as one object of title to sentences, or None where it is written otherwise."""
    text = read_text(file, what="corpus")
    if not text.lstrip().startswith("{"):
        return None
    try:
        table = parse_json(text, str(file), replace_surrogates=True)
    except InputError as error:
        if isinstance(error.__cause__, json.JSONDecodeError):
            return None  # JSON lines
        raise
    is_page = isinstance(table.get("title"), str) and isinstance(table.get("text"), str)
    return None if is_page else dict(table)


def _own_pages(file: Path, records: list[dict[str, Any]], kind: str) -> list[Page]:
    """The passages around the questions, each once."""
    pages: dict[Page, None] = {}
    read_pages = _hotpotqa_pages if kind == "hotpotqa" else _paragraph_pages
    for number, record in enumerate(records, start=1):
        pages.update(dict.fromkeys(_guard(read_pages, record, f"{file}, question {number}")))
    if not pages:
        raise InputError(f"{file} carries no passages; name a corpus with --corpus")
    return list(pages)


def _hotpotqa_pages(record: dict[str, Any], where: str) -> list[Page]:
    context = [_pair(entry, "context") for entry in _list(record, "context")]
    return [(str(title), _joined(lines, where)) for title, lines in context]


def _paragraph_pages(record: dict[str, Any], _: str) -> list[Page]:
    return [(_string(p, "title"), _string(p, "paragraph_text")) for p in _paragraphs(record)]


def _joined(sentences: Any, _: str) -> str:
    if isinstance(sentences, str):
        return sentences
    if not isinstance(sentences, list):
        raise TypeError(f"a page must be a text or a list of sentences, got {sentences!r:.60}")
    return "".join(str(sentence) for sentence in sentences)


def _write_pages(pages: list[Page], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for title, text in pages:
            if title.strip() and text.strip():
                file.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")
