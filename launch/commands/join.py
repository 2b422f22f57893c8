"""``lzero join``."""

import argparse
from pathlib import Path

from common.places import Role
from common.stopping import EXIT_RESUME
from launch.commands import EXIT_INTERRUPTED

_ROLES: dict[str, Role] = {"actor": "actor", "server": "policy-server"}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero join``."""
    about = "take part in a run that is on, on this machine"
    join = commands.add_parser("join", help=about, description=f"{about}, until it ends or Ctrl-C")
    join.add_argument("file", type=Path, help="of the run, RUN/join.json")
    join.add_argument("--role", required=True, choices=tuple(_ROLES), help="what to be")
    join.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it until the run is over or the member is drained; 130 and 75 as ``lzero train``."""
    from rich.console import Console

    from launch.run.joining import join
    from launch.starters.local import Interrupted, StopAsked

    try:
        join(arguments.file, _ROLES[arguments.role], Console())
    except StopAsked:
        return EXIT_RESUME
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0
