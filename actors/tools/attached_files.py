"""The files attached to a task, by their base names: nothing else of the host can be named."""

import asyncio
import os
import stat
from pathlib import Path, PurePosixPath

from actors.tools.arguments import short_text
from common.wire.records import Task

MAX_BYTES = 64 << 20
"""A larger file is not read by tools on the host; cells can read it in their working folder."""

MAX_NAME_CHARACTERS = 300
"""More than a file name has, with the working folder in front."""


async def attached_bytes(task: Task, name: object) -> bytes:
    """The content of the file called ``name``.

    Raises:
        TypeError: ``name`` is not text.
        ValueError: the task has no such file, or it is too large or cannot be read.
    """
    wanted = short_text(name, "a file name", MAX_NAME_CHARACTERS)
    wanted = wanted.removeprefix("/workspace/").removeprefix("./")
    paths = {PurePosixPath(path).name: path for path in task.files}
    if wanted not in paths:
        listed = ", ".join(paths) or "none"
        raise ValueError(f"no attached file is called {wanted!r}; attached files: {listed}")
    try:
        return await asyncio.to_thread(_read, Path(paths[wanted]))
    except OSError as error:
        raise ValueError(f"the attached file {wanted!r} cannot be read: {error.strerror}") from None


def _read(path: Path) -> bytes:
    """All of a file; a pipe or a device, which might never end, is refused."""
    with open(path, "rb", opener=_open_at_once) as file:
        information = os.fstat(file.fileno())
        if not stat.S_ISREG(information.st_mode):
            raise ValueError(f"the attached file {path.name!r} is not a plain file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"the attached file {path.name!r} has {information.st_size} bytes, more than "
            f"{MAX_BYTES}; read it in a cell"
        )
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for whoever may write into a pipe one day."""
    return os.open(path, flags | os.O_NONBLOCK)
