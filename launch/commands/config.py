"""``lzero config``."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.config import Config


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero config``."""
    parser = commands.add_parser(
        "config", help="show a configuration with the meaning, unit, default and range of each key"
    )
    parser.add_argument("file", nargs="?", type=Path, help="TOML or JSON file; else the defaults")
    parser.add_argument("--json", action="store_true", help="print JSON instead of TOML")
    parser.add_argument("--page", action="store_true", help="print docs/configuration.md")
    parser.add_argument("--recipes", action="store_true", help="print docs/recipes.md")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key; may be given several times",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from common.json_output import json_text
    from launch.report.configuration import as_tables, as_toml, page
    from launch.sizing import recipes

    if arguments.page:
        return _print(page())
    if arguments.recipes:
        return _print(recipes.page())
    config = _config(arguments.file, tuple(arguments.set))
    if arguments.json:
        return _print(json_text(as_tables(config), indent=1) + "\n")
    return _print(as_toml(config))


def _print(text: str) -> int:
    """Print it all, or as much as a reader like ``head`` wants; the exit status."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is flushed at the end of Python fails no more
    return 0


def _config(file: Path | None, overrides: tuple[str, ...]) -> "Config":
    from common.config import Config
    from common.config.overrides import apply_override
    from common.config_file import config_from_tables
    from launch.run.train import TrainRequest, resolve_config

    if file is not None:
        return resolve_config(TrainRequest(config=file, overrides=overrides))
    tables: dict[str, Any] = {}
    for override in overrides:
        apply_override(Config, tables, override)
    return config_from_tables(tables, where="--set")
