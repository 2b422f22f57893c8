"""Spells a value as a file of configurations has it: TOML instead of Python."""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from common.json_output import json_text

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_value(value: Any) -> str:
    """A value in TOML; a table in braces.

    Raises:
        RecursionError: it is nested too deeply.
        ValueError: it holds a whole number of more digits than Python writes.
    """
    if value is None or isinstance(value, bool | str):  # null is what a JSON file says
        return json_text(value, readable=True)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return toml_table({str(name): toml_value(item) for name, item in value.items()})
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def toml_table(items: Mapping[str, str]) -> str:
    """A table in braces of values that are TOML already."""
    return "{" + ", ".join(f"{_key(name)} = {item}" for name, item in items.items()) + "}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json_text(name, readable=True)
