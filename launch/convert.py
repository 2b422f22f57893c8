"""Converts published question sets into task and corpus files; see docs/tasks.md."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from actors.rewards.answers import can_be_matched
from common.errors import InputError
from common.messages import Task
from common.tasks import write_tasks

Format = Literal["hotpotqa", "musique", "nq"]
Page = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """How many tasks and pages were written, and how many questions could not be scored."""

    tasks: int
    pages: int
    unscorable: int = 0


def convert(file: Path, kind: Format, *, corpus: Path | None, out: Path) -> Converted:
    """Write ``tasks.jsonl`` and ``corpus.jsonl`` to ``out``.

    Gold answers that hold nothing but punctuation and articles ("A", "The The") are left out, and
    so is a question without any other.

    Args:
        file: the questions, a JSON list or JSON lines.
        kind: how they are written.
        corpus: the passages, a JSON object of title to sentences, a list of ``{title, text}``, or
            JSON lines of those; None takes the passages that come with the questions.
        out: folder, made if missing.

    Raises:
        InputError: a file is missing or not of that format; names the record and the field.
    """
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
    titles = list(dict.fromkeys(str(fact[0]) for fact in record.get("supporting_facts", [])))
    return Task(
        task_id=str(record.get("_id") or record.get("id") or where),
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
    aliases = [str(alias) for alias in record.get("answer_aliases", [])]
    supporting = [p["title"] for p in record.get("paragraphs", []) if p.get("is_supporting")]
    return Task(
        task_id=str(record.get("id") or where),
        question=_string(record, "question"),
        answers=tuple(dict.fromkeys([_string(record, "answer"), *aliases])),
        labels={
            "family": str(record.get("id", "musique")).split("_")[0],
            "source": "musique",
            "supporting_titles": json.dumps(list(dict.fromkeys(supporting)), ensure_ascii=False),
        },
    )


def _nq(record: dict[str, Any], where: str) -> Task:
    answers = record["answer"]
    if isinstance(answers, str):
        answers = [answers]
    return Task(
        task_id=str(record.get("id") or where),
        question=_string(record, "question"),
        answers=tuple(str(answer) for answer in answers),
        labels={"family": "one_hop", "source": "nq"},
    )


_TASKS: dict[str, Callable[[dict[str, Any], str], Task]] = {
    "hotpotqa": _hotpotqa,
    "musique": _musique,
    "nq": _nq,
}


def _guard(read: Callable[[dict[str, Any], str], Task], record: dict[str, Any], where: str) -> Task:
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
    if not file.is_file():
        raise InputError(f"{file} does not exist")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error.reason}") from error
    if text.lstrip().startswith("["):
        return list(_parse(text, str(file)))
    lines = text.split("\n")
    return [
        _parse(line, f"{file}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error


def _corpus_pages(file: Path) -> Iterator[Page]:
    if not file.is_file():
        raise InputError(f"corpus {file} does not exist")
    text = file.read_text(encoding="utf-8", errors="replace")
    by_title = _titles_to_sentences(text)
    if by_title is not None:
        for title, sentences in by_title.items():
            yield title, _joined(sentences)
        return
    for number, record in enumerate(_records(file), start=1):
        yield _page(record, f"{file}, page {number}")


def _page(record: dict[str, Any], where: str) -> Page:
    title = record.get("title")
    body = record.get("text", record.get("paragraph_text"))
    if not isinstance(title, str) or not isinstance(body, str):
        raise InputError(f"{where}: expected strings 'title' and 'text'")
    return title, body


def _titles_to_sentences(text: str) -> dict[str, Any] | None:
    """The corpus as one object of title to sentences, or None where it is written otherwise."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        table = json.loads(text)
    except json.JSONDecodeError:
        return None  # JSON lines
    is_page = isinstance(table.get("title"), str) and isinstance(table.get("text"), str)
    return None if is_page else dict(table)


def _own_pages(file: Path, records: list[dict[str, Any]], kind: Format) -> list[Page]:
    """The passages around the questions, each once."""
    pages: dict[Page, None] = {}
    for record in records:
        if kind == "hotpotqa":
            found = [(str(title), _joined(lines)) for title, lines in record.get("context", [])]
        else:
            found = [
                (str(p["title"]), str(p["paragraph_text"])) for p in record.get("paragraphs", [])
            ]
        pages.update(dict.fromkeys(found))
    if not pages:
        raise InputError(f"{file} carries no passages; name a corpus with --corpus")
    return list(pages)


def _joined(sentences: Any) -> str:
    if isinstance(sentences, str):
        return sentences
    return "".join(str(sentence) for sentence in sentences)


def _write_pages(pages: list[Page], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for title, text in pages:
            if title.strip() and text.strip():
                file.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")
