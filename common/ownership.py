"""Whether other users of the machine can put something of theirs in the place of what is ours.

Whoever may write to a folder may rename what is in it, whoever owns that and whatever its mode,
and put something else there. The sticky bit leaves that to the owners (rename(2)).
"""

import os
import stat
import tempfile
from pathlib import Path


def everybody_may_rename_in(found: os.stat_result) -> bool:
    """Whether any user may rename and replace what others put into a folder like this one."""
    return bool(found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX


def somebody_else_may_rename_in(found: os.stat_result) -> bool:
    """Whether anybody but us and root may: everybody, a group, or the folder's owner."""
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return bool(shared) or found.st_uid not in (0, os.geteuid())


def on_the_way(folder: Path) -> list[Path]:
    """The folder and all above it, up to ``/``; whoever may rename in one of them replaces it."""
    real = folder.resolve()
    return [real, *real.parents]


def is_our_own(folder: Path) -> bool:
    """Whether the folder has the owner that a file has which we make in it now.

    On file systems that give all files one owner of their choice, that owner is us.

    Raises:
        OSError: no file can be made in it.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        ours = os.fstat(file.fileno()).st_uid
    return {folder.stat().st_uid, folder.lstat().st_uid} == {ours}
