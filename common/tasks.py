"""Task files: JSON lines, one ``Task`` per line; see docs/tasks.md.

Every mistake becomes one ``InputError`` that names the file, the line and the field.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import InputError, LZeroError
from common.json_input import numbered_lines, parse_json
from common.task_rules import NO_EXTRAS, TaskRules, check_file, check_kind
from common.wire.records import Task

_REQUIRED = ("task_id", "question")
_FIELDS = tuple(field.name for field in dataclasses.fields(Task))


def read_tasks(
    path: Path,
    *,
    rules: TaskRules = NO_EXTRAS,
    check: Callable[[Task], None] | None = None,
) -> list[Task]:
    """The tasks of a file, in file order; empty lines are skipped.

    Args:
        path: the file; its tasks name their own files relative to its folder.
        rules: which task types and files its tasks may name.
        check: a further look at each task, e.g. ``actors.rewards.task_types.check_task``; the
            project's errors that it raises get file and line put before their text.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or a line is not a task; two lines carry
            the same ``task_id``; a task names what ``rules`` forbid; ``check`` refuses a task.
    """
    tasks: list[Task] = []
    lines_by_id: dict[str, int] = {}
    for number, line in numbered_lines(path, what="task file"):
        where = f"{path}, line {number}"
        task = parse_task(line, where=where, folder=path.parent, rules=rules)
        first = lines_by_id.setdefault(task.task_id, number)
        if first != number:
            raise InputError(f"{where}: task_id {task.task_id!r} is already used on line {first}")
        if check is not None:
            _look(partial(check, task), where)
        tasks.append(task)
    if not tasks:
        raise InputError(f"task file {path} holds no tasks; expected one JSON object per line")
    return tasks


def read_sources(
    files: Mapping[str, str], read: Callable[[Path], list[Task]]
) -> dict[str, list[Task]]:
    """The tasks of several files, which share no task id.

    Args:
        files: path by name of the source.
        read: reads one, e.g. ``read_tasks`` with rules.

    Raises:
        InputError: as ``read`` does, or two files hold tasks of one id.
    """
    tasks = {name: read(Path(path)) for name, path in files.items()}
    homes: dict[str, str] = {}
    for name, found in tasks.items():
        for task in found:
            home = homes.setdefault(task.task_id, name)
            if home != name:
                raise InputError(
                    f"task_id {task.task_id!r} is in {files[home]} and in {files[name]}; ids of "
                    "sources that are trained on together must differ (lzero tasks mix joins files)"
                )
    return tasks


def write_tasks(tasks: Iterable[Task], path: Path) -> None:
    """Write a task file that ``read_tasks`` reads back."""
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(dataclasses.asdict(task), ensure_ascii=False) + "\n")


def parse_task(line: str, *, where: str, folder: Path, rules: TaskRules = NO_EXTRAS) -> Task:
    """One line of a task file.

    Args:
        line: the text.
        where: begins the text of an error.
        folder: where relative paths in ``files`` start; they become absolute.
        rules: which task types and files the task may name.

    Raises:
        InputError: the line is not a JSON object with the fields of a task, or names a type or a
            file that it may not.
    """
    record = parse_json(line, where)
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, got {_shown(record)}")
    if "task_id" not in record:
        raise InputError(
            f"{where}: field 'task_id' is missing; give each task one, or have lzero tasks convert "
            "make a task file of question sets"
        )
    for key in record:
        if key not in _FIELDS:
            raise InputError(f"{where}: unknown field '{key[:60]}'; {_suggestion(key)}")
    for key in _REQUIRED + (("answers",) if record.get("kind", "qa") == "qa" else ()):
        if key not in record:
            raise InputError(f"{where}: field '{key}' is missing")
    kind = _text(record, "kind", where) if "kind" in record else "qa"
    _look(partial(check_kind, kind, rules), where)
    try:
        return Task(
            task_id=_text(record, "task_id", where),
            question=_text(record, "question", where),
            answers=_texts(record, "answers", where),
            corpus=_text(record, "corpus", where) if "corpus" in record else "train",
            labels=_strings(record, "labels", where),
            kind=kind,
            files=_files(record, where, folder, rules),
            details=_strings(record, "details", where),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _look(check: Callable[[], None], where: str) -> None:
    try:
        check()
    except LZeroError as error:
        raise InputError(f"{where}: {error}") from error


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: field '{key}' must be a string, got {_shown(value)}")
    return value


def _texts(record: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = record.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: field '{key}' must be a list of strings, got {_shown(value)}")
    return tuple(value)


def _strings(record: dict[str, Any], key: str, where: str) -> dict[str, str]:
    value = record.get(key, {})
    is_flat = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if not is_flat:
        raise InputError(
            f"{where}: field '{key}' must be an object of strings, got {_shown(value)}"
        )
    return dict(value)


def _files(record: dict[str, Any], where: str, folder: Path, rules: TaskRules) -> tuple[str, ...]:
    """Absolute paths of the files of a task; their names must differ, they share one folder."""
    paths: dict[str, str] = {}
    for name in _texts(record, "files", where):
        path = (folder / name).absolute()
        _look(partial(check_file, path, (folder,), rules), f"{where}: field 'files'")
        if path.name in paths:
            raise InputError(
                f"{where}: field 'files': two files are called {path.name!r}; both would be "
                f"written to the notebook's working folder: {paths[path.name]} and {path}"
            )
        paths[path.name] = str(path)
    return tuple(paths.values())


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, _FIELDS, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known fields: {', '.join(_FIELDS)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
