"""A small disk of its own for a run folder, which can be filled; where root may mount one."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILLER = "filler"


@contextmanager
def mounted(folder: Path, *, size: str = "16m") -> Iterator[bool]:
    """Whether ``folder`` is a disk of its own now; it is none any more at the end."""
    command = ("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(("umount", "--lazy", str(folder)), check=True)


def fill(folder: Path) -> None:
    """Take all of its room."""
    handle = os.open(folder / _FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (1 << 20, 1 << 12, 1):
            while _wrote(handle, bytes(size)):
                pass
    finally:
        os.close(handle)


def make_room(folder: Path) -> None:
    """Give it back."""
    (folder / _FILLER).unlink(missing_ok=True)


def _wrote(handle: int, data: bytes) -> bool:
    try:
        return os.write(handle, data) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
