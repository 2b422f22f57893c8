"""Takes fields out of records; what is not as it must be is a ``ValueError`` that names the field.

``null`` and NaN stand for "nothing" everywhere (tables write them for empty cells). A list inside
of a list, an object or true where a text belongs has no one meaning and is refused.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from common.errors import InputError
from common.json_input import parse_json
from common.wire.records import Task
from launch.data.sources.reading import Row


def is_nothing(value: Any) -> bool:
    """Whether a value is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def string(row: Row, key: str) -> str:
    """A text that must be there.

    Raises:
        ValueError: it is not, or is something else.
    """
    if key not in row:
        raise ValueError(f"field '{key}' is missing")
    if not isinstance(row[key], str):
        raise ValueError(f"field '{key}' must be a text, got {row[key]!r:.60}")
    return str(row[key])


def golds(value: Any, key: str) -> tuple[str | None, ...]:
    """The gold answers in a text, a number, or a list of those; None for null and NaN.

    Raises:
        ValueError: there is something else in it.
    """
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(None if is_nothing(item) else _written(item, key) for item in items)


def _written(item: Any, key: str) -> str:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise ValueError(f"field '{key}' must hold texts or numbers, got {item!r:.60}")
    if isinstance(item, float) and item.is_integer() and abs(item) < 2**53:
        return str(int(item))  # tables write 70.0 where a column holds an empty cell
    return str(item)


def listing(row: Row, key: str) -> list[Any]:
    """A list; empty where there is none. A text that holds a JSON list counts as one.

    Raises:
        ValueError: it is something else.
    """
    value = _unwrapped(row.get(key), key)
    if is_nothing(value):
        return []
    if not isinstance(value, list):
        raise ValueError(f"field '{key}' must be a list, got {value!r:.60}")
    return value


def table(row: Row, key: str) -> Row:
    """An object; empty where there is none. A text that holds a JSON object counts as one.

    Raises:
        ValueError: it is something else.
    """
    value = _unwrapped(row.get(key), key)
    if is_nothing(value):
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"field '{key}' must be an object, got {value!r:.60}")
    return value


def pairs(row: Row, key: str, second: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Titles with what belongs to each, as a list of pairs or as an object of two lists.

    Args:
        row: the record.
        key: the field; without it there are none.
        second: the names that the second list may have; the first is called ``title``.

    Raises:
        ValueError: it is written otherwise.
    """
    value = _unwrapped(row.get(key), key)
    if isinstance(value, Mapping):
        others = next((value[name] for name in second if name in value), None)
        return _zipped(value.get("title"), others, key)
    found = listing(row, key)
    if not all(isinstance(item, list) and len(item) == 2 for item in found):
        raise ValueError(f"field '{key}' must hold lists of two, got {found!r:.60}")
    return [(_title(title, key), other) for title, other in found]


def _zipped(titles: Any, others: Any, key: str) -> list[tuple[str, Any]]:
    if not (isinstance(titles, list) and isinstance(others, list) and len(titles) == len(others)):
        raise ValueError(
            f"field '{key}' must hold two lists of one length, 'title' and its contents, got "
            f"{titles!r:.40} and {others!r:.40}"
        )
    return [(_title(title, key), other) for title, other in zip(titles, others, strict=True)]


def _title(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"field '{key}' must name titles, got {value!r:.60}")
    return value


def joined(sentences: Any) -> str:
    """The text of a page, which may be a list of sentences.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(sentences, str):
        return sentences
    if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
        raise ValueError(f"a page must be a text or a list of sentences, got {sentences!r:.60}")
    return "".join(sentences)


def identity(row: Row, *keys: str) -> str | None:
    """The first id that there is, a number too.

    Raises:
        ValueError: it is neither text nor number.
    """
    for key in keys:
        value = row.get(key)
        if is_nothing(value) or value == "":
            continue
        is_whole = isinstance(value, float) and value.is_integer()  # a column with an empty cell
        if isinstance(value, bool) or not (isinstance(value, str | int) or is_whole):
            raise ValueError(f"field '{key}' must be a text or a whole number, got {value!r:.60}")
        return _written(value, key)
    return None


def titles_label(titles: list[str]) -> dict[str, str]:
    """The label ``supporting_titles``, each title once; none without titles."""
    once = list(dict.fromkeys(titles))
    return {"supporting_titles": json.dumps(once, ensure_ascii=False)} if once else {}


def _unwrapped(value: Any, key: str) -> Any:
    """What is inside of a text that holds JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return parse_json(value, f"field '{key}'", replace_surrogates=True)
    return value


def titles_of_label(task: Task) -> list[str]:
    """The titles in the label ``supporting_titles`` of a task; none without it.

    Raises:
        InputError: it is no JSON list of texts.
    """
    label = task.labels.get("supporting_titles")
    where = f"task {task.task_id!r}: label supporting_titles"
    titles = parse_json(label, where) if label else []
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        raise InputError(f"{where} must be a JSON list of titles, got {label!r:.100}")
    return titles
