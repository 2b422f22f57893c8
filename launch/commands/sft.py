"""``lzero sft``."""

import argparse
from pathlib import Path

from launch.commands import EXIT_INTERRUPTED
from learner.sft.config import add_options, config_from_options


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero sft``."""
    parser = commands.add_parser(
        "sft", help="fine-tune a model on traces or conversations, before reinforcement learning"
    )
    parser.add_argument("file", nargs="?", type=Path, help="same as --config")
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 130 where Ctrl-C ended it."""
    from rich.console import Console

    from launch.run.fine_tune import fine_tune
    from launch.starters.local import Interrupted

    options = vars(arguments)
    config = config_from_options(options | {"config": arguments.file or arguments.config})
    try:
        fine_tune(config, Console())
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0
