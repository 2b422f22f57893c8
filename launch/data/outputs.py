"""What may be written where: nothing that is read, and nothing that no command of ours made."""

from collections.abc import Callable, Iterable
from pathlib import Path

from common.errors import InputError


def check_outputs(
    out: Path,
    names: Iterable[str],
    *,
    inputs: Iterable[Path],
    made_by: str,
    is_ours: Callable[[Path], bool] = Path.exists,
) -> None:
    """Look at a folder before files are written to it, and taken away where they have no lines.

    Args:
        out: the folder; it need not exist.
        names: files that would be written.
        inputs: files that are read.
        made_by: the file by which an earlier result of the same command is known, whose files may
            be replaced.
        is_ours: whether the file ``made_by`` is one that the command wrote, and no one of the user.

    Raises:
        InputError: an input would be written over, or a file that is no earlier result.
    """
    read = [path for path in inputs if path.exists()]
    there = [path for path in (out / name for name in names) if path.exists()]
    for path in there:
        if source := next((one for one in read if one.samefile(path)), None):
            raise InputError(
                f"{source} is read, and --out {out} would write over it; name another folder"
            )
    if there and not is_ours(out / made_by):
        raise InputError(
            f"{there[0]} would be replaced, and is not from an earlier call (that leaves a "
            f"{made_by} of its own making); move it, or name another folder with --out"
        )
