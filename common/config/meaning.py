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


@dataclass(frozen=True, slots=True)
class Key:
    """One key, for people.

    Attributes:
        path: ``section.key``; NAME stands for a name that the user gives.
        meaning: one or more sentences.
        kind: what a value looks like, with choices, unit and range.
        default: in Python; MISSING where a value must be given.
    """

    path: str
    meaning: str
    kind: str
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
        header = f"[[{path}]]" if shape is tuple else f"[{path}]"
        yield Table(header, first_paragraph(inner), tuple(keys_in(inner, path)))
        yield from tables_below(inner, f"{path}.")


def keys_in(kind: Any, path: str) -> Iterator[Key]:
    """The keys of one section, without its tables."""
    meanings = meanings_of(kind)
    for field in fields(kind):
        if section_of(kind, field.name) is None and is_key(hint_of(kind, field.name)):
            hint = hint_of(kind, field.name)
            yield Key(f"{path}.{field.name}", meanings[field.name], describe(hint), default(field))


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
    """What values an annotation allows, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        ranges = [extra.describe() for extra in inner[1:] if isinstance(extra, Range)]
        return ": ".join([describe(inner[0]), *ranges])
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in inner)
    if origin is tuple and inner[1:] == (Ellipsis,):
        return f"list, each {describe(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: " + "; ".join(map(describe, inner))
    if origin is dict:
        return f"table of names, each {describe(inner[1])}"
    names = {int: "whole number", float: "number", str: "string", bool: "true or false"}
    return names[hint]


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
