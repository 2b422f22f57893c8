"""The files attached to a task, by their base names: nothing else of the host can be named."""

import asyncio
from pathlib import Path, PurePosixPath

from common.messages import Task

MAX_BYTES = 64 << 20
"""A larger file is not read by tools on the host; cells can read it in their working folder."""


def attached_names(task: Task) -> tuple[str, ...]:
    """Base names of the task's files, as the notebook's working folder has them."""
    return tuple(PurePosixPath(path).name for path in task.files)


async def attached_bytes(task: Task, name: object) -> bytes:
    """The content of the file called ``name``.

    Raises:
        ValueError: the task has no such file, or it is too large or cannot be read.
    """
    wanted = str(name).removeprefix("/workspace/").removeprefix("./")
    paths = dict(zip(attached_names(task), task.files, strict=True))
    if wanted not in paths:
        listed = ", ".join(paths) or "none"
        raise ValueError(f"no attached file is called {wanted!r}; attached files: {listed}")
    try:
        return await asyncio.to_thread(_read, Path(paths[wanted]))
    except OSError as error:
        raise ValueError(f"the attached file {wanted!r} cannot be read: {error.strerror}") from None


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"the attached file {path.name!r} has {size} bytes, more than {MAX_BYTES}; "
            "read it in a cell"
        )
    return path.read_bytes()
