"""``lzero drain``."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero drain``."""
    about = "have an actor or a policy server leave its run"
    drain = commands.add_parser("drain", help=about, description=f"{about}, which goes on")
    drain.add_argument("file", type=Path, help="of the run, RUN/join.json")
    drain.add_argument("name", help="of the member, as its log is named: a0, s1")
    drain.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, and say what becomes of the member."""
    from rich.console import Console

    from launch.run.joining import drain
    from launch.screen import say

    say(Console(), drain(arguments.file, arguments.name))
    return 0
