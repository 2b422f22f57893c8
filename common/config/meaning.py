"""What each key of the configuration means: read from the sections themselves.

The meaning is the docstring below a field, unit and range are those of its annotation; the command
``lzero config`` and docs/configuration.md show nothing that is written down a second time.
"""

import ast
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal

from common.config.ranges import Range, annotations_of, is_key
from common.config.spelling import toml_value


@dataclass(frozen=True, slots=True)
class Key:
    """One key, for people.

    Attributes:
        name: of the key in its table.
        meaning: one or more sentences.
        allowed: what a value looks like: kind, choices and range.
        unit: of a number; empty for what has none.
        default: in Python; MISSING where a value must be given.
    """

    name: str
    meaning: str
    allowed: str
    unit: str
    default: Any


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a file: its header, what it is about and its keys."""

    header: str
    meaning: str
    keys: tuple[Key, ...]


def tables_below(kind: Any, at: str = "") -> Iterator[Table]:
    """Every table below a configuration class, in the order of a file."""
    for field in fields(kind):
        inner, path = section_of(kind, field.name), f"{at}{field.name}"
        if inner is None:
            continue
        shape = typing.get_origin(hint_of(kind, field.name))
        path = f"{path}.NAME" if shape is dict else path
        keys = keys_in(inner)
        if keys:
            header = f"[[{path}]]" if shape is tuple else f"[{path}]"
            yield Table(header, first_paragraph(inner), keys)
        yield from tables_below(inner, f"{path}.")


def keys_in(kind: Any) -> tuple[Key, ...]:
    """The keys of one section, without its tables."""
    meanings = meanings_of(kind)
    hints = {field: hint_of(kind, field.name) for field in fields(kind)}
    return tuple(
        Key(field.name, meanings[field.name], describe(hint), unit_of(hint), default(field))
        for field, hint in hints.items()
        if section_of(kind, field.name) is None and is_key(hint)
    )


def section_of(kind: Any, name: str) -> Any:
    """The section behind a field: itself, of each name of a table, or of each entry of a list."""
    hint = hint_of(kind, name)
    for found in (hint, *typing.get_args(hint)):
        if isinstance(found, type) and is_dataclass(found):
            return found
    return None


def hint_of(kind: Any, name: str) -> Any:
    """The annotation of a field, with its range."""
    return annotations_of(kind)[name]


def default(field: "Field[Any]") -> Any:
    """The default of a field, MISSING for none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def describe(hint: Any) -> str:
    """What values an annotation allows, in words, without the unit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bounds = [extra.bounds() for extra in inner[1:] if isinstance(extra, Range)]
        return ", ".join([describe(inner[0]), *bounds])
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in inner)
    if origin is tuple and inner[1:] == (Ellipsis,):
        return f"list, each: {describe(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: " + "; ".join(map(describe, inner))
    if origin is dict:
        return f"table of names, each: {describe(inner[1])}"
    names = {int: "whole number", float: "number", str: "string", bool: "true or false"}
    return names[hint]


def unit_of(hint: Any) -> str:
    """The unit of a number, or of the numbers in a list or table; empty for anything else."""
    own = [extra.unit for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    return next(filter(None, (*own, *map(unit_of, typing.get_args(hint)))), "")


def facts_of(key: Key) -> str:
    """What values a key takes, their unit and its default, in one line."""
    unit = f" ({key.unit})" if key.unit else ""
    return f"{key.allowed}{unit}; default {default_of(key)}"


def default_of(key: Key) -> str:
    """The default of a key as a file has it."""
    return "none, it must be given" if key.default is MISSING else toml_value(key.default)


@functools.cache
def meanings_of(kind: type) -> dict[str, str]:
    """The docstring below each field of a class, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def first_paragraph(kind: type) -> str:
    """The first paragraph of a class' docstring, on one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
