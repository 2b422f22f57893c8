"""``lzero real``."""

import argparse
from pathlib import Path

from common.stopping import EXIT_RESUME
from launch.commands import EXIT_INTERRUPTED


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero real``."""
    parser = commands.add_parser(
        "real", help="warm up, train and report on a pretrained model, from bringing it on"
    )
    parser.add_argument(
        "preset", nargs="?", type=Path, help="default: launch/presets/real.toml; see docs"
    )
    parser.add_argument("--name", help="run folder below run.folder")
    parser.add_argument(
        "--model", type=Path, help="instead of the packaged one: a Hugging Face folder or a GGUF"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key of the configuration; may be given several times",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 130 where Ctrl-C ended it, 75 where SIGTERM or SIGUSR1 did and it can go on."""
    from rich.console import Console

    from launch.real.run import DEFAULT_PRESET, RealRequest, run_real
    from launch.starters.local import Interrupted, StopAsked

    request = RealRequest(
        preset=arguments.preset or DEFAULT_PRESET,
        name=arguments.name,
        model=arguments.model,
        overrides=tuple(arguments.set),
    )
    try:
        run_real(request, Console())
    except StopAsked:
        return EXIT_RESUME
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0
