"""``lzero why``."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero why``."""
    about = "say in one sentence what a run waits for in the end"
    why = commands.add_parser(
        "why", help=about, description=f"{about}; of one that is over, how it ended"
    )
    why.add_argument("run_folder", type=Path, metavar="RUN", help="folder of the run")
    why.add_argument("--json", action="store_true", help="print JSON instead")
    why.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Say it, then each wait on the way."""
    from rich.console import Console

    from common.json_output import json_text
    from launch.screen import say
    from launch.watch.seen import look
    from launch.watch.show import chain_lines, why_as_json

    seen = look(arguments.run_folder)
    if arguments.json:
        print(json_text(why_as_json(seen), indent=1))
        return 0
    console = Console()
    say(console, seen.sentence())
    chain = seen.chain()
    for line in [] if chain is None else chain_lines(chain):
        say(console, line)
    return 0
