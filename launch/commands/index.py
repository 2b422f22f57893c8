"""``lzero index``."""

import argparse
from pathlib import Path

from common.errors import InputError

_SHORTEST_PASSAGE = 200


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero index``."""
    parser = commands.add_parser("index", help="make the index that the local search tool reads")
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="JSON lines with title and text, text or Markdown files, or folders of these",
    )
    parser.add_argument("--out", type=Path, required=True, help="index to write (SQLite)")
    parser.add_argument(
        "--passage-characters",
        type=int,
        default=1000,
        metavar="N",
        help="longest passage of text and Markdown files, with its title (default 1000)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from actors.tools.search.index import build_index

    if arguments.passage_characters < _SHORTEST_PASSAGE:
        raise InputError(
            f"--passage-characters must be at least {_SHORTEST_PASSAGE}, "
            f"got {arguments.passage_characters}"
        )
    for path in arguments.paths:
        if not path.exists():
            raise InputError(f"corpus '{path}' does not exist")
    pages = build_index(
        arguments.paths, arguments.out, passage_characters=arguments.passage_characters
    )
    print(f"indexed {pages} pages into {arguments.out}")
    return 0
