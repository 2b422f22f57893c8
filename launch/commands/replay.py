"""``lzero replay``."""

import argparse
from pathlib import Path

from launch.commands import EXIT_INTERRUPTED

EXIT_AS_EXPECTED, EXIT_OTHERWISE = 0, 1


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero replay``."""
    about = "train again from the journal of a run, without servers or actors, and compare"
    parser = commands.add_parser("replay", help=about, description=f"{about}.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a cut journal")
    parser.add_argument("--steps", metavar="A-B", help="only these; default: all that can be")
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="a variant: settings that the learner's step reads; each --set is one of its own",
    )
    parser.add_argument("--out", type=Path, metavar="NEW", help="keep records and weights there")
    parser.add_argument(
        "--expect-different", action="store_true", help="exit with 0 if it differs, 1 if not"
    )
    parser.add_argument("--ranks", type=int, default=0, metavar="N", help="default: the run's")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="where model.path is here")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 where it is not as expected, 130 where Ctrl-C ended it."""
    from rich.console import Console

    from common.errors import InputError
    from common.json_output import json_text
    from common.whole_file import write_whole
    from launch.journal.steps import parse_steps
    from launch.replay.planning import ReplayRequest
    from launch.replay.run import replay_run
    from launch.replay.show import outcome_as_json, print_outcome
    from launch.starters.local import Interrupted

    if arguments.ranks < 0:
        raise InputError(f"--ranks must be at least 1, got {arguments.ranks}")
    request = ReplayRequest(
        run=arguments.folder,
        steps=None if arguments.steps is None else parse_steps(arguments.steps),
        variants=arguments.set,
        out=arguments.out,
        ranks=arguments.ranks,
        model=arguments.model,
    )
    try:
        outcome = replay_run(request, Console(stderr=True))
    except Interrupted:
        return EXIT_INTERRUPTED
    text = json_text(outcome_as_json(outcome), indent=1)
    if arguments.out is not None and not outcome.damage:
        write_whole(arguments.out / "replay.json", text + "\n")
    if arguments.json:
        print(text)
    else:
        print_outcome(outcome, Console())
    is_expected = outcome.is_as_expected(different=arguments.expect_different)
    return EXIT_AS_EXPECTED if is_expected else EXIT_OTHERWISE
