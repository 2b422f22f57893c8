"""``lzero eval``."""

import argparse
from pathlib import Path

from launch.commands import EXIT_INTERRUPTED


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero eval``."""
    parser = commands.add_parser("eval", help="score a checkpoint on a fresh held-out world")
    parser.add_argument("checkpoint", type=Path, help="run, checkpoint or Hugging Face folder")
    parser.add_argument("--world-seed", type=int, required=True, help="which held-out world")
    parser.add_argument("--no-search", action="store_true", help='all searches: "No results."')
    parser.add_argument("--per-family", type=int, default=400, help="questions (default 400)")
    parser.add_argument("--greedy", action="store_true", help="also at temperature 0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 130 where Ctrl-C ended it."""
    from rich.console import Console

    from common.json_output import json_text
    from launch.run.evaluate import EvaluateRequest, evaluate, print_scores, scores_as_json
    from launch.starters.local import Interrupted

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
        print(json_text(scores_as_json(result), indent=1))
    else:
        print_scores(result, Console())
    return 0
