"""Memory and process limits of kernels by control groups (version 2), where we may make them.

A folder of a cgroup v2 hierarchy gets one group for this process and below it one per kernel. The
files are those of the Linux kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

_CONTROLLERS = ("memory", "pids")
_MOUNT = Path("/sys/fs/cgroup")
_MEBIBYTE = 1 << 20
_INIT_PROCESSES = 1


class NoCgroupError(Exception):
    """Control groups cannot be used here; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CageLimits:
    """Limits of one kernel's group."""

    sandbox_memory_mib: int
    processes: int


class Cage:
    """The control group of one kernel."""

    def __init__(self, folder: Path) -> None:
        """Take over a group that was made."""
        self._folder = folder

    def add(self, pids: list[int]) -> None:
        """Move processes in; their later children are in it from the start.

        Raises:
            OSError: the group or a process is gone, or moving is denied.
        """
        for pid in pids:
            _write(self._folder / "cgroup.procs", str(pid))

    def cpu_s(self) -> float:
        """CPU seconds of all processes that ever were in it."""
        return _count(self._folder / "cpu.stat", "usage_usec") / 1e6

    def out_of_memory(self) -> bool:
        """Whether the kernel of the system killed it for its memory."""
        return _count(self._folder / "memory.events", "oom_kill") > 0

    def remove(self) -> None:
        """Remove the group; its processes must be gone."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()


class Cages:
    """Makes a group per kernel."""

    def __init__(self, parent: Path, limits: CageLimits) -> None:
        """Make a group for this process's kernels below ``parent``.

        Raises:
            NoCgroupError: the folder is no cgroup v2, lacks a controller, or is not ours to divide.
        """
        self._limits = limits
        self._folder = parent / f"lzero-{os.getpid()}"
        try:
            _divide(parent)
            self._folder.mkdir(exist_ok=True)
            try:
                _divide(self._folder)
            except BaseException:
                self._folder.rmdir()
                raise
        except OSError as error:
            raise NoCgroupError(f"{parent}: {error.strerror}") from None

    def make(self, name: str) -> Cage:
        """Make the group of a fresh kernel: beyond its memory all its processes are killed.

        Raises:
            OSError: the system refused.
        """
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        _write(folder / "memory.max", str(self._limits.sandbox_memory_mib * _MEBIBYTE))
        _write(folder / "memory.oom.group", "1")
        _write(folder / "pids.max", str(self._limits.processes + _INIT_PROCESSES))
        if (folder / "memory.swap.max").exists():
            _write(folder / "memory.swap.max", "0")
        return Cage(folder)

    def close(self) -> None:
        """Remove the groups that are left; the kernels must be gone."""
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                if folder.is_dir():
                    Cage(folder).remove()
            self._folder.rmdir()


def own_cgroup() -> Path:
    """Folder of the group that this process is in.

    Raises:
        NoCgroupError: there is no cgroup v2 here.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number == "0" and (_MOUNT / "cgroup.controllers").exists():
            return _MOUNT / path.lstrip("/")
    raise NoCgroupError("this machine has no cgroup v2")


def _divide(folder: Path) -> None:
    """Let groups below ``folder`` have limits.

    A group that holds processes cannot be divided; if it holds only this process, that moves into
    a group of its own below.
    """
    try:
        offered = (folder / "cgroup.controllers").read_text().split()
        enabled = (folder / "cgroup.subtree_control").read_text().split()
    except FileNotFoundError:
        raise NoCgroupError(f"{folder} is not a cgroup v2") from None
    if missing := sorted(set(_CONTROLLERS) - set(offered)):
        raise NoCgroupError(f"{folder} offers no controller {' and '.join(missing)}")
    if set(_CONTROLLERS) <= set(enabled):
        return
    wanted = " ".join(f"+{name}" for name in _CONTROLLERS)
    try:
        _write(folder / "cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _step_aside(folder)
        _write(folder / "cgroup.subtree_control", wanted)


def _step_aside(folder: Path) -> None:
    if (folder / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        raise NoCgroupError(
            f"{folder} also holds processes of others; name a group for the kernels alone "
            "(kernel.cgroup)"
        )
    leaf = folder / f"lzero-{os.getpid()}-host"
    leaf.mkdir(exist_ok=True)
    _write(leaf / "cgroup.procs", str(os.getpid()))


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _count(file: Path, name: str) -> int:
    """One number of a flat-keyed file; 0 where it cannot be read."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(v) for key, _, v in (x.partition(" ") for x in lines) if key == name), 0)
