"""Task files: JSON lines, one ``Task`` per line; see docs/tasks.md.

Every mistake becomes one ``InputError`` that names the file, the line and the field.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.messages import Task

_REQUIRED = ("task_id", "question", "answers")
_FIELDS = tuple(field.name for field in dataclasses.fields(Task))


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file, in file order; empty lines are skipped.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or a line is not a task; two lines carry
            the same ``task_id``.
    """
    tasks: list[Task] = []
    lines_by_id: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        task = parse_task(line, where=f"{path}, line {number}")
        first = lines_by_id.setdefault(task.task_id, number)
        if first != number:
            raise InputError(
                f"{path}, line {number}: task_id {task.task_id!r} is already used on line {first}"
            )
        tasks.append(task)
    if not tasks:
        raise InputError(f"task file {path} holds no tasks; expected one JSON object per line")
    return tasks


def write_tasks(tasks: Iterable[Task], path: Path) -> None:
    """Write a task file that ``read_tasks`` reads back."""
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(dataclasses.asdict(task), ensure_ascii=False) + "\n")


def parse_task(line: str, *, where: str) -> Task:
    """One line of a task file; ``where`` begins the text of an error.

    Raises:
        InputError: the line is not a JSON object with the fields of a task.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON: {error.msg} (column {error.colno})") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, got {_shown(record)}")
    for key in record:
        if key not in _FIELDS:
            raise InputError(f"{where}: unknown field '{key}'; {_suggestion(key)}")
    for key in _REQUIRED:
        if key not in record:
            raise InputError(f"{where}: field '{key}' is missing")
    try:
        return Task(
            task_id=_text(record, "task_id", where),
            question=_text(record, "question", where),
            answers=_texts(record["answers"], where),
            corpus=_text(record, "corpus", where) if "corpus" in record else "train",
            labels=_labels(record.get("labels", {}), where),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"task file {path} does not exist")
    try:
        # Not splitlines(): a question may hold a Unicode line separator.
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"task file {path} is not UTF-8: {error.reason}") from error


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: field '{key}' must be a string, got {_shown(value)}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: field 'answers' must be a list of strings, got {_shown(value)}")
    return tuple(value)


def _labels(value: Any, where: str) -> dict[str, str]:
    is_flat = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if not is_flat:
        raise InputError(
            f"{where}: field 'labels' must be an object of strings, got {_shown(value)}"
        )
    return dict(value)


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, _FIELDS, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known fields: {', '.join(_FIELDS)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
