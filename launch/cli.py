"""The ``lzero`` command."""

import argparse
import logging
import sys
from collections.abc import Sequence

from common.errors import LZeroError, RunFailed
from launch.commands import (
    EXIT_INTERRUPTED,
    agent,
    evaluate,
    export,
    export_notebook,
    import_check,
    sft,
    tasks,
    train,
)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
_COMMANDS = (train, sft, evaluate, export, import_check, tasks, agent, export_notebook)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; expected errors become one line and an exit status."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="lzero: %(message)s")
    try:
        return int(parsed.run(parsed))
    except RunFailed as error:
        print(f"lzero: {error}", file=sys.stderr)
        return EXIT_FAILED
    except LZeroError as error:
        print(f"lzero: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lzero", description="Train language models into notebook agents, asynchronously."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
