"""Shows a configuration with all there is to know about each key; makes the page about them."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from common.config import Config
from common.config.meaning import (
    Table,
    default_of,
    facts_of,
    first_paragraph,
    keys_in,
    section_of,
    tables_below,
)
from common.config.spelling import toml_value
from common.config_file import tables_of
from common.json_output import json_text
from learner.sft.config import FineTuning

COMMAND = "lzero config --page > docs/configuration.md"
"""What writes the page."""

_PAGE = """# Configuration

Written by `{command}`; change the sections in `common/config/` and `learner/sft/config.py` instead.

A run is one TOML file with the tables below; every key has a default, and `lzero train FILE --set
section.key=VALUE` gives one key another value, in TOML (a plain word needs no quotes for a key
that takes a string). `extends = "FILE"` at the top of a file names another, relative to it, of
which it only says what differs; a list replaces a list. `lzero config FILE` shows what comes of a
file. A mistake names table, key, what was expected and what came; a key of an earlier version is
refused with what to write instead. `inf` is taken where a limit may be left out.

NAME stands for a name of yours; a table in double brackets may occur several times. Of the tables
of `objective`, only that of the chosen objective, and `gae` where `advantage` is, may say anything.
"""

_SFT = """
# Fine-tuning

`lzero sft FILE` reads a file of its own with this one table; each key is also an option of the
command (`--muon-learning-rate 0.01`), which goes over the file.
"""


def as_toml(config: Config) -> str:
    """The configuration as a file that says all keys, each below what it means."""
    return "\n".join(_lines(config)).lstrip("\n") + "\n"


def as_tables(config: Config) -> dict[str, dict[str, Any]]:
    """All keys by their path, with value, meaning, allowed values, unit and default."""
    found: dict[str, dict[str, Any]] = {}
    for _, place, section in _sections(config, ""):
        for key in keys_in(type(section)):
            value = tables_of(getattr(section, key.name))
            found[f"{place}.{key.name}"] = {
                "value": value,
                "meaning": key.meaning,
                "allowed": key.allowed,
                "unit": key.unit,
                "default": None if key.default is MISSING else tables_of(key.default),
            }
    return found


def page() -> str:
    """docs/configuration.md."""
    tables = "".join(map(_table, tables_below(Config)))
    of_sft = "".join(map(_table, tables_below(FineTuning)))
    return _PAGE.format(command=COMMAND) + tables + _SFT + of_sft


def _lines(config: Config) -> Iterator[str]:
    for header, _, section in _sections(config, ""):
        keys = keys_in(type(section))
        if keys:
            yield f"\n{header}  # {_plain(first_paragraph(type(section)))}"
        inline = [key for key in keys if not isinstance(getattr(section, key.name), Mapping)]
        for key in inline:
            yield f"# {_plain(key.meaning)}"
            yield f"# {facts_of(key)}"
            yield f"{key.name} = {toml_value(getattr(section, key.name))}"
        for key in keys:
            value = getattr(section, key.name)
            if isinstance(value, Mapping):
                yield f"\n{header[:-1]}.{key.name}]  # {_plain(key.meaning)}"
                yield f"# {facts_of(key)}"
                yield from (
                    f"{json_text(name)} = {toml_value(item)}" for name, item in value.items()
                )


def _sections(config: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Each section of a configuration, with its header in a file and its name among all."""
    for field in fields(config):
        value = getattr(config, field.name)
        if section_of(type(config), field.name) is None:
            continue
        place = f"{path}{field.name}"
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield f"[{place}.{json_text(name)}]", f"{place}.{name}", inner
        elif isinstance(value, tuple):
            yield from ((f"[[{place}]]", f"{place}.{inner.name}", inner) for inner in value)
        else:
            yield f"[{place}]", place, value
            yield from _sections(value, f"{place}.")


def _table(table: Table) -> str:
    rows = "".join(
        f"| `{key.name}` | `{default_of(key)}` | {_cell(key.allowed)} | {_cell(key.unit)} "
        f"| {_cell(key.meaning)} |\n"
        for key in table.keys
    )
    head = "| key | default | values | unit | meaning |\n|---|---|---|---|---|\n"
    return f"\n## `{table.header}`\n\n{_cell(table.meaning)}\n\n{head}{rows}"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Without the double quotes of docstrings around code."""
    return text.replace("``", "`")
