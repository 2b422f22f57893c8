"""The private folder of a run: sockets and keys, where nobody but the run's user can enter.

It lies under ``XDG_RUNTIME_DIR`` or ``/tmp``, because the path of a Unix socket may have 107 bytes
and a run folder may be anywhere; the run folder has a link to it while the run is on. Both are
taken only where nobody else can rename it and put a folder of his own there.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.config import Config
from common.errors import MachineError
from common.ownership import everybody_may_rename_in, on_the_way, somebody_else_may_rename_in
from common.places import COMPILED, RunPlan
from common.plan_file import keys_file, save_plan
from common.user_cache import user_cache
from common.wire.keys import write_key_pair
from common.wire.sockets import new_key_pair
from launch.plan.topology import RunFiles, members, plan_run

_PREFIX = "lzero-"
_TMP = Path("/tmp")  # noqa: S108  what is made in it is a new folder that only we can enter
_LONGEST = 50
"""Characters of the folder above; the longest socket in the private one takes about as many."""


@contextmanager
def private_folder(run: Path) -> Iterator[Path]:
    """A fresh folder for the sockets and keys of the run in ``run``; gone at the end.

    What an earlier start of the same run left, because it was killed, is removed first.
    """
    link = run / "private"
    _remove(link)
    with fresh_folder() as folder:
        link.symlink_to(folder)
        try:
            yield folder
        finally:
            _remove(link)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A new folder that nobody else can enter; gone at the end.

    Raises:
        MachineError: there is no place for it.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_plan(config: Config, files: RunFiles, *, resume: bool = False) -> RunPlan:
    """Decide who runs where, with fresh keys for everybody, and write it down for the processes."""
    plan = plan_run(config, files, make_keys(files.private, members(config)), resume=resume)
    save_plan(plan)
    return plan


def make_keys(folder: Path, members: Iterable[str]) -> dict[str, str]:
    """Draw keys for everybody and write each to a file; the public ones by name."""
    public = {}
    for member in members:
        pair = new_key_pair()
        write_key_pair(keys_file(folder, member), pair)
        public[member] = pair.public
    return public


def compiled_before() -> dict[str, str]:
    """The variable that has torch keep what it compiled from one start to the next.

    Empty where the user has no cache folder in which nobody else can put anything; what is
    compiled then lasts as long as the private folder (``launch.plan.topology``).
    """
    cache = user_cache()
    folder = cache / "lzero" / "compiled"
    if not cache.is_absolute():
        return {}
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        open_to_others = any(somebody_else_may_rename_in(f.stat()) for f in on_the_way(folder))
    except OSError:
        return {}
    if open_to_others or not _is_ours(folder) or not os.access(folder, os.W_OK):
        return {}
    return {COMPILED: str(folder.resolve())}


def _place() -> Path:
    """Where it can be made: the user's own runtime folder if there is one that fits."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own and os.access(own, os.W_OK) and _is_ours(Path(own)):
        way = on_the_way(Path(own))
        closed = not any(somebody_else_may_rename_in(folder.stat()) for folder in way)
        if closed and len(str(way[0])) <= _LONGEST:
            return way[0]
    if everybody_may_rename_in(_TMP.stat()):
        raise MachineError(
            f"in {_TMP} everybody may rename the folder of a run's keys and put another there; "
            f"as root: chmod +t {_TMP}, or set XDG_RUNTIME_DIR to a folder with mode 0700"
        )
    return _TMP


def _remove(link: Path) -> None:
    """The link, and the folder behind it if it is one of ours."""
    if not link.is_symlink():
        return
    folder = link.readlink()
    link.unlink()
    if folder.name.startswith(_PREFIX) and _is_ours(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether it is a real folder of this user."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
