"""``--set section.key=value``: the value is TOML, and a plain word is a string without quotes."""

import re
import shlex
import tomllib
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal

from common.config.ranges import kind_of, short
from common.config.spelling import toml_table, toml_value
from common.errors import ConfigError
from common.json_output import json_text

_NO_WORD = re.compile(r"""\s*["'\[{]|[+-]?\d(?!.*\..*\.)[\d_.:,eExXoObBTZ+-]*\s*$""")
"""Text that was meant as another value than a word: quoted, a list, a table, a number, a date; but
no address such as 10.0.0.1:5000."""


def apply_override(kind: type, tables: dict[str, Any], override: str) -> None:
    """Put the value of ``section.key=value`` into ``tables``, which are to become a ``kind``.

    Raises:
        ConfigError: it has another form, or the value is no TOML and no plain word for a string.
    """
    key, _, text = override.partition("=")
    *sections, name = _key_parts(key) or ("",)
    if "=" not in override or not sections:
        raise ConfigError(f"override {override!r} must look like section.key=value")
    expected = _expected(kind, [*sections, name])
    value = _value(key, text, expected, lambda item: f"--set {shlex.quote(f'{key}={item}')}")
    table = tables
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"override {override!r}: {section!r} is not a table")
    table[name] = value


def typed_text(kind: type, name: str, value: Any, *, shown: str) -> Any:
    """The value of a key as the text of a command's option: itself for a string, else TOML.

    Raises:
        ConfigError: it is no TOML value; begins with ``shown``.
    """
    expected = _expected(kind, [name])
    if not isinstance(value, str) or _takes_words(expected):
        return value
    return _value(shown, value, expected, lambda item: f"{shown} {shlex.quote(item)}")


def _takes_words(expected: Any) -> bool:
    return expected is str or typing.get_origin(expected) is Literal


def _value(key: str, text: str, expected: Any, given_as: Callable[[str], str]) -> Any:
    takes_words = _takes_words(expected)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        pass
    if takes_words and not _NO_WORD.match(text):
        return text
    fitting = json_text(text, readable=True) if takes_words else example_of(expected)
    hint = f"{'a text stands in quotes' if takes_words else 'for example'}: {given_as(fitting)}"
    raise ConfigError(
        f"{key} must be {kind_of(expected)}, got {short(text)}, which is no TOML value; {hint}"
    )


def example_of(hint: Any) -> str:
    """A value that an annotation allows, in TOML."""
    inner = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        required = [f.name for f in fields(hint) if f.default is f.default_factory is MISSING]
        return toml_table({name: example_of(hints[name]) for name in required})
    if origin is Literal:
        return toml_value(inner[0])
    if origin is tuple:
        items = inner[:1] if inner[1:] == (Ellipsis,) else inner
        return f"[{', '.join(map(example_of, items))}]"
    if origin is dict:
        return toml_table({"name": example_of(inner[1])})
    return {int: "8", float: "0.5", str: '"text"', bool: "true"}[hint]


def _expected(kind: Any, path: list[str]) -> Any:
    """The type of a key; a string's where nobody knows it and it is refused for that later."""
    for name in path:
        origin = typing.get_origin(kind)
        if origin is dict:
            kind = typing.get_args(kind)[1]
        elif not is_dataclass(kind) or name not in {field.name for field in fields(kind)}:
            return str
        else:
            kind = typing.get_type_hints(kind)[name]
    return kind


def _key_parts(key: str) -> list[str]:
    """The parts of a dotted TOML key, some of which may be quoted; empty if it is none."""
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return []
    parts: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        ((part, table),) = table.items()
        parts.append(part)
    return parts if table == 0 else []
