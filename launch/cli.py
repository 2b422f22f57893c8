"""The ``lzero`` command."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from launch.doctor.package_names import refuse_clashes

refuse_clashes()  # before anything is imported that another package might hide

from common.errors import LZeroError, RunError  # noqa: E402
from common.telemetry.log_lines import log_lines  # noqa: E402
from common.visible import visible  # noqa: E402
from launch.commands import (  # noqa: E402
    EXIT_INTERRUPTED,
    agent,
    config,
    doctor,
    drain,
    evaluate,
    export,
    export_notebook,
    import_check,
    import_gguf,
    index,
    join,
    journal,
    real,
    replay,
    sft,
    status,
    tasks,
    train,
    why,
)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
_OTHERS_WRITE = 0o002
"""Nothing that a command or its processes make is everybody's to change, whatever the umask."""
_COMMANDS = (
    train,
    join,
    drain,
    status,
    why,
    real,
    sft,
    evaluate,
    export,
    import_check,
    import_gguf,
    tasks,
    index,
    agent,
    export_notebook,
    journal,
    replay,
    config,
    doctor,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; expected errors become one line and an exit status."""
    parsed = _parser().parse_args(arguments)
    os.umask(os.umask(_OTHERS_WRITE) | _OTHERS_WRITE)
    log_lines("lzero: %(message)s", logging.WARNING)
    try:
        return int(parsed.run(parsed))
    except RunError as error:
        print(visible(f"lzero: {error}"), file=sys.stderr)
        return EXIT_FAILED
    except LZeroError as error:
        print(visible(f"lzero: {error}"), file=sys.stderr)
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
