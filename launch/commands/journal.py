"""``lzero journal``."""

import argparse
from pathlib import Path

EXIT_WHOLE, EXIT_DAMAGED = 0, 1


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero journal``."""
    journal = commands.add_parser("journal", help="look into, check or cut the journal of a run")
    actions = journal.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what is in it")
    show.add_argument("--records", action="store_true", help="list the records one by one")
    show.add_argument("--steps", metavar="A-B", help="only of these steps")
    show.set_defaults(run=_show)
    cut = actions.add_parser("cut", help="write a piece of it that can be replayed")
    cut.add_argument("--steps", metavar="A-B", required=True, help="which steps")
    cut.add_argument("--out", type=Path, required=True, help="new folder for the piece")
    cut.set_defaults(run=_cut)
    check = actions.add_parser("check", help="whether all of it is as it was written")
    check.set_defaults(run=_check)
    for action in (show, cut, check):
        action.add_argument("folder", type=Path, metavar="RUN", help="run folder, or its journal")
        action.add_argument("--json", action="store_true", help="print JSON alone")


def _show(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from common.json_output import json_text
    from launch.journal.contents import contents_of
    from launch.journal.listing import list_records
    from launch.journal.place import find_journal
    from launch.journal.show import contents_as_json, print_contents, within
    from launch.journal.steps import parse_steps
    from launch.screen import say
    from learner.journal.survey import survey

    steps = None if arguments.steps is None else parse_steps(arguments.steps)
    found = survey(find_journal(arguments.folder).folder)
    contents = within(contents_of(found), steps)
    records = list_records(found, steps) if arguments.records else None
    if arguments.json:
        print(json_text(contents_as_json(contents, records), indent=1))
        return EXIT_WHOLE
    console = Console()
    if records is None:
        print_contents(contents, console)
    for row in records or ():
        say(console, str(row))
    return EXIT_WHOLE


def _cut(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from common.json_output import json_text
    from launch.journal.cut import cut_journal
    from launch.journal.place import find_journal
    from launch.journal.show import piece_as_json, print_piece
    from launch.journal.steps import parse_steps

    place, steps = find_journal(arguments.folder), parse_steps(arguments.steps)
    piece = cut_journal(place, steps, arguments.out)
    if arguments.json:
        print(json_text(piece_as_json(piece), indent=1))
    else:
        print_piece(piece, Console(), arguments.folder)
    return EXIT_WHOLE


def _check(arguments: argparse.Namespace) -> int:
    """1 where something is damaged or missing; a torn end alone is as a killed writer leaves it."""
    from rich.console import Console

    from common.json_output import json_text
    from launch.journal.check import check_journal
    from launch.journal.place import find_journal
    from launch.journal.show import checked_as_json, print_checked

    checked = check_journal(find_journal(arguments.folder))
    if arguments.json:
        print(json_text(checked_as_json(checked), indent=1))
    else:
        print_checked(checked, Console())
    return EXIT_WHOLE if checked.is_whole else EXIT_DAMAGED
