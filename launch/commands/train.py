"""``lzero train``."""

import argparse
from pathlib import Path

from common.stopping import EXIT_RESUME
from launch.commands import EXIT_INTERRUPTED


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero train``."""
    train = commands.add_parser("train", help="train, or go on training, on this machine")
    train.add_argument("config", type=Path, help="TOML file, e.g. launch/presets/quickstart.toml")
    train.add_argument("--name", help="run folder below run.folder")
    train.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint and its journal"
    )
    train.add_argument(
        "--keep-old", action="store_true", help="rename an earlier run of that name, then begin"
    )
    train.add_argument(
        "--profile",
        action="store_true",
        help="trace two steps of the learner into the run's folder profiles/",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key of the configuration; may be given several times",
    )
    train.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 130 where Ctrl-C ended it, 75 where SIGTERM or SIGUSR1 did and it can go on."""
    from rich.console import Console

    from launch.run.train import TrainRequest, train
    from launch.starters.local import Interrupted, StopAsked

    request = TrainRequest(
        config=arguments.config,
        name=arguments.name,
        resume=arguments.resume,
        keep_old=arguments.keep_old,
        overrides=tuple(arguments.set),
        profile=arguments.profile,
    )
    try:
        train(request, Console())
    except StopAsked:
        return EXIT_RESUME
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0
