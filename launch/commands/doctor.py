"""``lzero doctor``."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero doctor``."""
    parser = commands.add_parser("doctor", help="try everything that a run needs on this machine")
    parser.add_argument("config", type=Path, nargs="?", help="check this run's files, too")
    parser.add_argument("--json", action="store_true", help="print JSON; the report goes to stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 if training cannot start."""
    from launch.doctor.checks import doctor

    return doctor(arguments.config, as_json=arguments.json)
