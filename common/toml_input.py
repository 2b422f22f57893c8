"""Reads TOML that people hand us, and names a key that occurs twice with its line."""

import re
import tomllib
from typing import Any

_LINE = re.compile(r"\(at line (\d+),")
_MOST_LINES = 1000
"""Of one value, after which its beginning is looked for no more."""


def parse_toml(text: str) -> dict[str, Any]:
    """The tables in a TOML text.

    Raises:
        ValueError: it is no TOML, or a key occurs twice; the message says where.
        RecursionError: it is nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        twice = str(error).startswith("Cannot") and _key_given_twice(text, str(error))
        if not twice:
            raise
        raise ValueError(twice) from error


def _key_given_twice(text: str, message: str) -> str:
    """Which key of a text whose parser says that it cannot be given again, and its line.

    The statement at fault is what follows the longest beginning of the text that can be parsed.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    said = _LINE.search(message)
    end = int(said[1]) if said else len(lines)
    for begin in range(end - 1, max(end - 1 - _MOST_LINES, -1), -1):
        try:
            tomllib.loads("\n".join(lines[:begin]))
            statement = tomllib.loads("\n".join(lines[begin:end]))
        except ValueError:
            continue
        what = "table" if lines[begin].lstrip().startswith("[") else "key"
        return f"{what} '{_path(statement)}' occurs twice, line {begin + 1}"
    return ""


def _path(tables: Any) -> str:
    """The dotted path of the only key of a statement, down to its value."""
    parts = []
    while isinstance(tables, dict) and len(tables) == 1:
        ((part, tables),) = tables.items()
        parts.append(part)
        tables = tables[0] if isinstance(tables, list) and tables == [{}] else tables
    return ".".join(parts)
