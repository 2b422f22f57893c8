"""Reads and writes run configurations: TOML from people, resolved JSON between processes.

Every mistake becomes one ``ConfigError`` that names the file, the key, what was expected and what
came; unknown keys name the closest known one.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.config import Config
from common.config.overrides import apply_override
from common.config.ranges import is_key, kind_of, short
from common.config.renamed import as_named_now, refusal
from common.errors import ConfigError, InputError
from common.json_input import parse_json, read_text
from common.json_output import as_number, json_text
from common.toml_input import parse_toml
from common.whole_file import write_whole

T = TypeVar("T")

EXTENDS = "extends"
"""At the top of a file: another, relative to it, of which it only says what differs."""


def load_config(
    path: Path, overrides: Sequence[str] = (), *, defaults: Config | None = None
) -> Config:
    """The configuration in a TOML or JSON file, with ``section.key=value`` overrides applied.

    Args:
        path: the file; ``extends = "FILE"`` at its top names one of which it says what differs.
        overrides: applied after it.
        defaults: what keys have that the file does not name; the usual defaults unless given.

    Raises:
        ConfigError: the file is missing or malformed, or a key or value is wrong.
    """
    tables = _extended(path, ())
    for override in overrides:
        apply_override(Config, tables, override)
    if defaults is not None:
        tables = _merged(tables_of(defaults), tables)
    return config_from_tables(tables, where=f"{path} with --set" if overrides else str(path))


def load_earlier_config(path: Path) -> Config:
    """The configuration that a run kept, perhaps one of an earlier version, as far as it goes.

    Raises:
        ConfigError: the file cannot be read, or says what no version did.
    """
    return config_from_tables(as_named_now(Config, read_tables(path)), where=str(path))


def save_config(config: Config, path: Path) -> None:
    """Write a resolved configuration as JSON, for the processes of the run and for the record."""
    write_whole(path, json_text(tables_of(config), indent=1) + "\n")


def config_from_tables(tables: Mapping[str, Any], *, where: str) -> Config:
    """A configuration from nested mappings (for instance out of a checkpoint)."""
    return from_tables(Config, tables, where=where)


def from_tables(kind: type[T], tables: Mapping[str, Any], *, where: str) -> T:
    """A class of sections, or any frozen record, from nested mappings.

    Raises:
        ConfigError: a key is unknown or has another name now, or a value is wrong.
    """
    fault = refusal(kind, tables)
    if fault:
        raise ConfigError(f"{where}: {fault}")
    return _build(kind, tables, where=where, prefix="")


def with_keys(config: Config, section: str, values: Mapping[str, Any], *, where: str) -> Config:
    """``config`` with some keys of one of its sections replaced.

    Raises:
        ConfigError: a key is unknown, or a value is wrong.
    """
    part = getattr(config, section)
    checked = _values(type(part), values, where=where, prefix=f"{section}.")
    try:
        return dataclasses.replace(config, **{section: dataclasses.replace(part, **checked)})
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def tables_of(value: Any) -> Any:
    """A section as nested plain values, as a file has them: keys only."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        names = [f.name for f in dataclasses.fields(value) if is_key(hints[f.name])]
        return {name: tables_of(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: tables_of(inner) for name, inner in value.items()}
    return [tables_of(inner) for inner in value] if isinstance(value, tuple | list) else value


def read_tables(path: Path, *, called: str = "config file") -> dict[str, Any]:
    """What a TOML or JSON file holds, unchecked but for its being a table.

    Raises:
        ConfigError: the file is missing, cannot be read or parsed, or holds no table.
    """
    try:
        text = read_text(path, what=called)
        if path.suffix == ".json":
            tables = parse_json(text, f"{called} {path} cannot be parsed")
        else:
            tables = parse_toml(text)
    except InputError as error:
        raise ConfigError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{called} {path} cannot be parsed: {_reason(error)}") from error
    if not isinstance(tables, dict):
        raise ConfigError(f"{called} {path} must hold a table of sections, got {short(tables)}")
    return tables


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """What a file holds over what the file holds that it extends; a list replaces a list.

    Args:
        path: the file.
        above: the files through which it was reached, resolved.

    Raises:
        ConfigError: see ``read_tables``; or the files go in a circle, or extend none.
    """
    tables, here = read_tables(path), path.resolve()
    if EXTENDS not in tables:
        return tables
    name = tables.pop(EXTENDS)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: {EXTENDS} must be the path of a file, got {short(name)}")
    if (path.parent / name).resolve() in (*above, here):
        raise ConfigError(f"{path}: {EXTENDS} = '{name}' goes in a circle; take one of them out")
    return _merged(_extended(path.parent / name, (*above, here)), tables)


def _reason(error: Exception) -> str:
    """Why a file cannot be parsed, in one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).partition(";")[0] if "integer string conversion" in str(error) else str(error)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, table by table."""
    tables = dict(below)
    for key, value in above.items():
        under = tables.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = _merged(under, value)
        tables[key] = value
    return tables


def _build(kind: type[T], table: Mapping[str, Any], *, where: str, prefix: str) -> T:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {prefix.rstrip('.')} must be a table, got {short(table)}")
    values = _values(kind, table, where=where, prefix=prefix)
    required = [f.name for f in dataclasses.fields(typing.cast(Any, kind)) if _is_required(f)]
    lacking = [name for name in required if name not in table]
    if lacking:
        raise ConfigError(f"{where}: {prefix}{lacking[0]} is missing; it has no default")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _values(kind: type, table: Mapping[str, Any], *, where: str, prefix: str) -> dict[str, Any]:
    known = key_names(kind)
    hints = typing.get_type_hints(kind)
    unknown = [key for key in table if key not in known]
    if unknown:
        raise ConfigError(_unknown(where, prefix, unknown[0], known))
    return {
        key: _convert(hints[key], value, where=where, key=prefix + key)
        for key, value in table.items()
    }


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def key_names(kind: Any) -> list[str]:
    """The names of a section's keys."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [field.name for field in dataclasses.fields(kind) if is_key(hints[field.name])]


def _unknown(where: str, prefix: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    every = keys_of(Config)
    elsewhere = [name for name in every if name.rpartition(".")[2] == key]
    elsewhere += difflib.get_close_matches(f"{prefix}{key}", every, n=1)
    if close:
        hint = f"did you mean '{prefix}{close[0]}'?"
    elif elsewhere:
        hint = f"did you mean '{elsewhere[0]}'?"
    else:
        hint = f"known keys: {', '.join(prefix + name for name in sorted(known))}"
    return f"{where}: unknown key {short(prefix + key)}; {hint}"


def keys_of(kind: Any, prefix: str = "") -> list[str]:
    """Every key below a configuration class as ``section.key``; tables of free keys as one."""
    hints = typing.get_type_hints(kind)
    keys: list[str] = []
    for field in key_names(kind):
        inner: Any = hints[field]
        name = f"{prefix}{field}"
        keys += keys_of(inner, f"{name}.") if dataclasses.is_dataclass(inner) else [name]
    return keys


def _convert(hint: Any, value: Any, *, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where=where, prefix=key + ".")
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            listed = ", ".join(repr(choice) for choice in choices)
            raise ConfigError(f"{where}: {key} must be one of {listed}, got {short(value)}")
        return value
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where=where, key=key)
    if origin is dict:
        return _convert_table(typing.get_args(hint)[1], value, where=where, key=key)
    number = as_number(value) if hint is float else value
    if not isinstance(number, hint) or (hint is int and isinstance(number, bool)):
        quotes = f' (a text stands in quotes: "{short(value)}")' if hint is str else ""
        quotes = quotes if isinstance(value, int | float | date | time) else ""
        raise ConfigError(f"{where}: {key} must be {kind_of(hint)}, got {short(value)}{quotes}")
    return number


def _convert_tuple(hints: tuple[Any, ...], value: Any, *, where: str, key: str) -> tuple[Any, ...]:
    if isinstance(value, list | tuple) and hints[1:] == (Ellipsis,):
        hints = hints[:1] * len(value)
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: {key} must be a list, got {short(value)}")
    if len(value) != len(hints):
        raise ConfigError(
            f"{where}: {key} must be a list of {len(hints)} values, got {short(value)}"
        )
    return tuple(
        _convert(hint, item, where=where, key=f"{key}[{index}]")
        for index, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _convert_table(hint: Any, value: Any, *, where: str, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {key} must be a table, got {short(value)}")
    return {
        name: _convert(hint, item, where=where, key=f"{key}.{name}") for name, item in value.items()
    }
