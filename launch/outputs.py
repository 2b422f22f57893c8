"""What a command says when it cannot write its result."""

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
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}; name another place") from error


def check_output_file(target: Path) -> None:
    """Try to open a file for writing, before work is done whose result it will hold.

    What it holds stays, and where there was none there is none; its folder is made.

    Raises:
        InputError: it cannot be written.
    """
    with written(target):
        is_new = not target.exists()
        if not is_new and not target.is_file() and not target.is_dir():
            return  # a device or a pipe, which opening may change
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("ab").close()
        if is_new:
            target.unlink()
