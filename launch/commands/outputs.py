"""What a command says when it cannot write its result."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Name ``target`` where the system does not let it be written.

    Raises:
        InputError: it does not.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"{target} cannot be written: {error}") from error
