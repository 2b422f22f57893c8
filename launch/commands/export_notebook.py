"""``lzero export-notebook``."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero export-notebook``."""
    parser = commands.add_parser(
        "export-notebook", help="write an episode of a run or an evaluation as a Jupyter notebook"
    )
    parser.add_argument(
        "source", type=Path, help="run folder, result of lzero eval, or a file of episodes"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trajectory", default="", metavar="ID", help="id of trajectory or task")
    which.add_argument("--index", type=int, help="place among the episodes, from 0 (default 0)")
    which.add_argument(
        "--best", action="store_const", const="best", dest="extreme", help="highest reward"
    )
    which.add_argument(
        "--worst", action="store_const", const="worst", dest="extreme", help="lowest reward"
    )
    parser.add_argument("--out", type=Path, required=True, help="notebook to write")
    parser.set_defaults(run=run, extreme="")


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from launch.notebooks.export import save_notebook
    from launch.notebooks.transcripts import Choice, find_transcript
    from launch.outputs import written

    choice = Choice(name=arguments.trajectory, index=arguments.index, extreme=arguments.extreme)
    transcript = find_transcript(arguments.source, choice)
    with written(arguments.out):
        save_notebook(transcript, arguments.out)
    name = transcript.names[0] if transcript.names else "the episode"
    print(f"wrote {name} ({transcript.outcome}) to {arguments.out}")
    return 0
