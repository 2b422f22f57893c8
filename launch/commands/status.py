"""``lzero status``."""

import argparse
import time
from pathlib import Path

_EVERY_S = 1.0
_WIDTH = 240
"""Characters of a line where nobody says how wide it may be."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero status``."""
    about = "show who is in a run, what each does and what everything waits for"
    status = commands.add_parser(
        "status", help=about, description=f"{about}, while it is on and afterwards"
    )
    status.add_argument("run_folder", type=Path, metavar="RUN", help="folder of the run")
    status.add_argument("--json", action="store_true", help="print JSON instead, one object a look")
    status.add_argument("--watch", action="store_true", help="look every second until the run ends")
    status.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look once, or until the run ends."""
    from rich.console import Console
    from rich.live import Live

    from common.json_output import json_text
    from launch.watch.seen import as_json, look
    from launch.watch.show import page

    seen = look(arguments.run_folder)
    if arguments.json:
        print(json_text(as_json(seen)), flush=True)
        while arguments.watch and seen.is_on:
            time.sleep(_EVERY_S)
            seen = look(arguments.run_folder)
            print(json_text(as_json(seen)), flush=True)
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    if not (arguments.watch and console.is_terminal):
        console.print(page(seen), soft_wrap=True)
        while arguments.watch and seen.is_on:
            time.sleep(_EVERY_S)
            seen = look(arguments.run_folder)
            console.print(page(seen), soft_wrap=True)
        return 0
    with Live(page(seen), console=console, auto_refresh=False) as live:
        while seen.is_on:
            time.sleep(_EVERY_S)
            seen = look(arguments.run_folder)
            live.update(page(seen), refresh=True)
    return 0
