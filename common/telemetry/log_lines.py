"""Logging: one line per event on standard error."""

import logging
import sys
from typing import Any

from common.visible import visible


class VisibleFormatter(logging.Formatter):
    """What a message quotes can neither steer a terminal nor begin a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of an event; ``%(level)s`` is its level in small letters."""
        record.level = record.levelname.lower()
        return visible(super().formatMessage(record)).replace("\n", "\n  | ")

    def formatException(self, ei: Any) -> str:
        """The traceback below it."""
        return visible(super().formatException(ei))


def configure_logging(role: str, *, force: bool = True) -> None:
    """One line per event on standard error, with the process' role; call it once, in ``main``.

    ``force`` replaces what logs already.
    """
    who = role.replace("%", "%%")
    formatter = VisibleFormatter(f"%(asctime)s {who} %(level)s %(message)s", "%Y-%m-%d %H:%M:%S")
    logging.basicConfig(handlers=[_handler(formatter)], level=logging.INFO, force=force)


def log_lines(style: str, level: int) -> None:
    """Lines in the format ``style`` of ``logging`` on standard error, if nothing logs yet."""
    logging.basicConfig(handlers=[_handler(VisibleFormatter(style))], level=level)


def _handler(formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler
