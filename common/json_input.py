"""Reads text and JSON that people hand us; every mistake is an ``InputError`` that says where.

Taken: UTF-8 with or without a byte order mark, lines that end in LF or CR LF, blank lines. Refused:
what has no one meaning (a key that occurs twice, NaN, numbers without end) or cannot be stored
(half of a surrogate pair, which JSON can write and UTF-8 cannot).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import InputError

_BOM = "\ufeff"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_DIGITS = 100


def numbered_lines(path: Path, *, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Only line feeds end a line: a text may hold a Unicode line separator.

    Args:
        path: the file.
        what: begins the text of an error, e.g. ``task file``.

    Raises:
        InputError: it is missing, no regular file, cannot be read, or is not UTF-8.
    """
    _require_file(path, what)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = _decoded(line, f"{what} {path}", f", line {number}").lstrip(_BOM)
                if text.strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from error


def read_text(path: Path, *, what: str) -> str:
    """The whole text of a file.

    Raises:
        InputError: as ``numbered_lines``.
    """
    return text_of(read_bytes(path, what=what), f"{what} {path}")


def read_bytes(path: Path, *, what: str) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: it is missing, no regular file, or cannot be read.
    """
    _require_file(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from error


def text_of(data: bytes, name: str) -> str:
    """The text in the bytes of a file, without its byte order mark.

    Raises:
        InputError: it is not UTF-8; begins with ``name``.
    """
    return _decoded(data, name, "").removeprefix(_BOM)


def parse_json(text: str, where: str, *, replace_surrogates: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: the text.
        where: begins the text of an error.
        replace_surrogates: put a question mark for half of a surrogate pair.

    Raises:
        InputError: it is not JSON, or is refused (see above); names the field where there is one.
    """
    try:
        value = json.loads(
            text.rstrip(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
        field = surrogate_in(value) if _SURROGATE.search(text) else None
        if field is not None and replace_surrogates:
            return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise InputError(
            f"{where}: not valid JSON: {error.msg} ({line}column {error.colno})"
        ) from error
    except RecursionError:
        raise InputError(f"{where}: not usable JSON: brackets are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{where}: not usable JSON: {error}") from error
    if field is not None:
        raise InputError(
            f"{where}: field '{field}' holds half of a surrogate pair (\\ud800 to \\udfff), which "
            "is no text, often a cut emoji; take it out"
        )
    return value


def surrogate_in(value: Any) -> str | None:
    """Path of the first text in a JSON value that UTF-8 cannot hold, like ``answers[1]``."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, str) and item.encode("utf-8", "replace").decode() != item:
            return path.encode("utf-8", "backslashreplace").decode()
        if isinstance(item, list | tuple):
            waiting += [(f"{path}[{n}]", inner) for n, inner in enumerate(item)][::-1]
        elif isinstance(item, dict):
            fields = [(f"{path}.{key}".removeprefix("."), key) for key in item]
            waiting += [(name, item[key]) for name, key in fields][::-1] + fields[::-1]
    return None


def _require_file(path: Path, what: str) -> None:
    try:
        is_there, is_file = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {str(path)!r} cannot be read: {error}") from error
    if not is_there:
        raise InputError(f"{what} {path} does not exist")
    if not is_file:
        raise InputError(f"{what} {path} is not a file")


def _decoded(data: bytes, name: str, line: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8"
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            hint = "it looks like UTF-16; " + hint
        at = line or f", line {1 + data[: error.start].count(10)}"
        raise InputError(f"{name}{at} is not UTF-8: {error.reason}; {hint}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"field '{twice}' occurs twice; which of them counts?")
    return table


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON; write null, or leave the field out")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; write it as a string")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large; write it as a string")
    return value
