"""The ``lzero`` command. Heavy packages are imported only by what needs them."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import LZeroError, RunFailed

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; expected errors become one line and an exit status."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="lzero: %(message)s")
    try:
        return int(parsed.run(parsed))
    except RunFailed as error:
        print(f"lzero: {error}", file=sys.stderr)
        return EXIT_FAILED
    except LZeroError as error:
        print(f"lzero: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lzero", description="Train language models into notebook agents, asynchronously."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_eval(commands)
    _add_tasks(commands)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser("train", help="train, or go on training, on this machine")
    train.add_argument("config", type=Path, help="TOML file, e.g. launch/presets/quickstart.toml")
    train.add_argument("--name", default="", help="run folder below run.folder")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument(
        "--keep-old", action="store_true", help="rename an earlier run of that name, then begin"
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key of the configuration; may be given several times",
    )
    train.set_defaults(run=_train)


def _add_eval(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("eval", help="score a checkpoint on a fresh held-out world")
    parser.add_argument("checkpoint", type=Path, help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--world-seed", type=int, required=True, help="which held-out world")
    parser.add_argument("--no-search", action="store_true", help='all searches: "No results."')
    parser.add_argument("--per-family", type=int, default=400, help="questions (default 400)")
    parser.add_argument("--greedy", action="store_true", help="also at temperature 0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_evaluate)


def _add_tasks(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _train(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launch.supervisor import Interrupted
    from launch.train import TrainRequest, train

    request = TrainRequest(
        config=arguments.config,
        name=arguments.name,
        resume=arguments.resume,
        keep_old=arguments.keep_old,
        overrides=tuple(arguments.set),
    )
    try:
        train(request, Console())
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launch.evaluate import EvaluateRequest, evaluate, print_scores, scores_as_json
    from launch.supervisor import Interrupted

    request = EvaluateRequest(
        checkpoint=arguments.checkpoint,
        world_seed=arguments.world_seed,
        search_disabled=arguments.no_search,
        per_family=arguments.per_family,
        greedy=arguments.greedy,
    )
    try:
        result = evaluate(request, Console(stderr=True))
    except Interrupted:
        return EXIT_INTERRUPTED
    if arguments.json:
        print(json.dumps(scores_as_json(result), indent=1))
    else:
        print_scores(result, Console())
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from launch.convert import convert

    tasks, pages = convert(
        arguments.file, arguments.format, corpus=arguments.corpus, out=arguments.out
    )
    print(f"wrote {tasks} tasks and {pages} pages to {arguments.out}")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    from actors.tools.search import build_index

    pages = build_index(arguments.corpus, arguments.database)
    print(f"indexed {pages} pages into {arguments.database}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from common.tasks import read_tasks

    print(f"{arguments.file}: {len(read_tasks(arguments.file))} tasks, no mistakes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
