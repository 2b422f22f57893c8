"""``lzero eval``."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from launch.commands import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from launch.evaluate.request import AskRequest, Prices

EXIT_DONE, EXIT_FAILED_EPISODES = 0, 1
_OF_THE_WORLD = {"no_search": "--no-search", "per_family": "--per-family", "greedy": "--greedy"}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero eval``."""
    parser = commands.add_parser(
        "eval", help="score a model on task files, a suite, or a fresh held-out world"
    )
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        help="run, checkpoint or Hugging Face folder; none with --url",
    )
    _add_questions(parser.add_argument_group("questions"))
    _add_asking(parser.add_argument_group("asking"))
    _add_server(parser.add_argument_group("server"))
    _add_output(parser.add_argument_group("output"))
    parser.set_defaults(run=run)


def _add_questions(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--tasks",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="task files; docs/tasks.md",
    )
    group.add_argument("--suite", choices=("qa", "math", "code"), help="published question sets")
    group.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where they are; default: LZERO_DATA"
    )
    group.add_argument("--limit", type=int, default=0, metavar="N", help="tasks per set; 0: all")
    group.add_argument("--world-seed", type=int, help="instead: this held-out world")
    group.add_argument(
        "--no-search", action="store_true", help='world: all searches: "No results."'
    )
    group.add_argument("--per-family", type=int, help="world: questions (default 400)")
    group.add_argument("--greedy", action="store_true", help="world: also at temperature 0")


def _add_asking(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--mode",
        choices=("agent", "direct", "rag"),
        default="agent",
        help="in the notebook (default), one answer, or one answer with pages found before",
    )
    group.add_argument("--samples", type=int, default=1, metavar="K", help="episodes per task")
    group.add_argument("--temperature", type=float, help="default: 0; with samples the agent's")
    group.add_argument("--corpus", default="", metavar="INDEX", help="made by lzero index")
    group.add_argument("--pages", type=int, default=3, help="of mode rag (default 3)")
    group.add_argument("--parallel", type=int, default=0, metavar="N", help="episodes in flight")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings over those of the run")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting over both"
    )


def _add_server(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--url", default="", help="OpenAI-compatible, e.g. http://HOST:8000/v1")
    group.add_argument("--model", dest="served_name", default="", metavar="NAME", help="there")
    group.add_argument("--key-env", default="", help="environment variable with the API key")
    group.add_argument("--price-in", type=float, help="of a million prompt tokens")
    group.add_argument("--price-out", type=float, help="of a million generated tokens")


def _add_output(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/eval-...")
    group.add_argument("--against", type=Path, metavar="FOLDER", help="compare with this result")
    group.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 where episodes failed, 130 where Ctrl-C ended it."""
    from common.errors import InputError

    is_world = arguments.world_seed is not None
    if is_world == bool(arguments.tasks or arguments.suite):
        raise InputError(
            "name either questions (--tasks FILE ... or --suite qa|math|code) or a world "
            "(--world-seed N)"
        )
    return _run_world(arguments) if is_world else _run_sets(arguments)


def _run_world(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from common.errors import InputError
    from common.json_output import json_text
    from launch.evaluate.world import EvaluateRequest, evaluate, print_scores, scores_as_json
    from launch.starters.local import Interrupted

    if arguments.model is None:
        raise InputError("--world-seed needs a run, a checkpoint or a model folder")
    request = EvaluateRequest(
        checkpoint=arguments.model,
        world_seed=arguments.world_seed,
        search_disabled=arguments.no_search,
        per_family=400 if arguments.per_family is None else arguments.per_family,
        greedy=arguments.greedy,
    )
    try:
        result = evaluate(request, Console(stderr=True))
    except Interrupted:
        return EXIT_INTERRUPTED
    if arguments.json:
        print(json_text(scores_as_json(result), indent=1))
    else:
        print_scores(result, Console())
    return EXIT_DONE


def _run_sets(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from common.json_output import json_text
    from common.whole_file import write_whole
    from launch.evaluate.page import write_page
    from launch.evaluate.run import evaluate_sets
    from launch.evaluate.show import as_json, print_result, told_failures
    from launch.screen import say
    from launch.starters.local import Interrupted

    errors = Console(stderr=True)
    try:
        result = evaluate_sets(_request(arguments), errors)
    except Interrupted:
        say(errors, "interrupted; the same command goes on where it stopped")
        return EXIT_INTERRUPTED
    text = json_text(as_json(result), indent=1)
    write_whole(result.folder.results, text + "\n")
    write_page(result)
    if arguments.json:
        print(text)
    else:
        print_result(result, Console())
    for line in told_failures(result.results):
        say(errors, line)
    return EXIT_FAILED_EPISODES if result.results.failed else EXIT_DONE


def _request(arguments: argparse.Namespace) -> "AskRequest":
    from common.errors import InputError
    from launch.evaluate.request import AskRequest
    from launch.evaluate.sets import sets_of_files, sets_of_suite

    for name, option in _OF_THE_WORLD.items():
        if getattr(arguments, name) not in (None, False):
            raise InputError(f"{option} goes with --world-seed only")
    if arguments.tasks and arguments.suite:
        raise InputError("--tasks and --suite exclude each other; name one of them")
    return AskRequest(
        model=arguments.model,
        url=arguments.url,
        served_name=arguments.served_name,
        key_variable=arguments.key_env,
        chosen=sets_of_suite(arguments.suite, arguments.data)
        if arguments.suite
        else sets_of_files(arguments.tasks),
        mode=arguments.mode,
        samples=arguments.samples,
        limit=arguments.limit,
        temperature=arguments.temperature,
        corpus=arguments.corpus,
        pages=arguments.pages,
        parallel=arguments.parallel,
        config_file=arguments.config,
        overrides=tuple(arguments.set),
        out=arguments.out,
        prices=_prices(arguments),
        against=arguments.against,
    )


def _prices(arguments: argparse.Namespace) -> "Prices":
    from common.errors import InputError
    from launch.evaluate.request import Prices

    for option, price in (("--price-in", arguments.price_in), ("--price-out", arguments.price_out)):
        if price is not None and not (math.isfinite(price) and price >= 0):
            raise InputError(f"{option} must be a price of at least 0, got {price}")
    return Prices(prompt=arguments.price_in, generated=arguments.price_out)
