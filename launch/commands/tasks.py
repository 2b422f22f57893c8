"""``lzero tasks``."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero tasks``."""
    tasks = commands.add_parser("tasks", help="convert, index and check your own tasks")
    actions = tasks.add_subparsers(required=True, metavar="ACTION")
    convert = actions.add_parser("convert", help="make task and corpus files from a data set")
    convert.add_argument("file", type=Path, help="questions")
    convert.add_argument("--format", required=True, choices=("hotpotqa", "musique", "nq"))
    convert.add_argument("--corpus", type=Path, help="passages, unless the questions carry them")
    convert.add_argument("--out", type=Path, required=True, help="folder for the result")
    convert.set_defaults(run=_convert)
    index = actions.add_parser("index", help="make the search index of a corpus")
    index.add_argument("corpus", type=Path, help="JSON lines with title and text")
    index.add_argument("database", type=Path, help="index to write")
    index.set_defaults(run=_index)
    check = actions.add_parser("check", help="read a task file and report the first mistake")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check)


def _convert(arguments: argparse.Namespace) -> int:
    from launch.convert import convert

    done = convert(arguments.file, arguments.format, corpus=arguments.corpus, out=arguments.out)
    print(f"wrote {done.tasks} tasks and {done.pages} pages to {arguments.out}")
    if done.unscorable:
        print(f"left out {done.unscorable} questions: their answers are only punctuation")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    from actors.tools.search import build_index

    pages = build_index(arguments.corpus, arguments.database)
    print(f"indexed {pages} pages into {arguments.database}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from actors.rewards.task_types import check_task
    from common.tasks import read_tasks

    tasks = read_tasks(arguments.file, check=check_task)
    print(f"{arguments.file}: {len(tasks)} tasks, no mistakes")
    return 0
