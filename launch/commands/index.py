"""``lzero index``."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError

if TYPE_CHECKING:
    from common.config import Config

_SHORTEST_PASSAGE = 200


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero index``."""
    parser = commands.add_parser("index", help="make the index that the local search tool reads")
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="JSON lines with title and text, text or Markdown files, or folders of these",
    )
    parser.add_argument(
        "--out", type=Path, metavar="INDEX", help="index to write (SQLite); without PATHs to check"
    )
    parser.add_argument(
        "--passage-characters",
        type=int,
        default=1000,
        metavar="N",
        help="longest passage of text and Markdown files, with its title (default 1000)",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="TASKS",
        help="task file: tell how often its questions find their supporting pages or answers",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="RUN.toml",
        help="--check: the run's [tools.search] and, without --out, its tasks.train_corpus",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from common.config import Config
    from common.config_file import load_config

    config = load_config(arguments.config) if arguments.config else Config()
    if not (arguments.paths or arguments.check):
        raise InputError("name what to index, or --check TASKS to look at an index there is")
    index = arguments.out or _index_of(config, arguments)
    if arguments.paths:
        _build(arguments, index)
    if arguments.check:
        _check(arguments.check, index, config)
    return 0


def _index_of(config: "Config", arguments: argparse.Namespace) -> Path:
    """The index of a run, where only a look at it is asked for."""
    if arguments.paths:
        raise InputError("--out is missing: name the index to write")
    if not config.tasks.train_corpus:
        raise InputError(
            "name the index: --out INDEX, or --config RUN.toml of a run that has tasks.train_corpus"
        )
    return Path(config.tasks.train_corpus)


def _build(arguments: argparse.Namespace, index: Path) -> None:
    from actors.tools.search.index import build_index

    if arguments.passage_characters < _SHORTEST_PASSAGE:
        raise InputError(
            f"--passage-characters must be at least {_SHORTEST_PASSAGE}, "
            f"got {arguments.passage_characters}"
        )
    for path in arguments.paths:
        if not path.exists():
            raise InputError(f"corpus '{path}' does not exist")
    pages = build_index(arguments.paths, index, passage_characters=arguments.passage_characters)
    print(f"indexed {pages} pages into {index}")


def _check(file: Path, index: Path, config: "Config") -> None:
    from actors.tools.search.index import SearchIndex
    from common.task_rules import task_rules
    from common.tasks import read_tasks
    from launch.data.recall import MOST_CHECKED, evenly, measure, recall_lines

    search = config.tools.search
    tasks = read_tasks(file, rules=task_rules(config))
    asked = evenly(tasks, MOST_CHECKED)
    with closing(SearchIndex(index, search)) as opened:
        recall = measure(opened, search, asked)
    print(
        f"{len(asked)} of {len(tasks)} questions of {file} asked of {index} as they are written, "
        f"with match = '{search.match}', title_weight = {search.title_weight:g}, "
        f"max_characters = {search.max_characters}"
    )
    for line in recall_lines(recall):
        print(line)
