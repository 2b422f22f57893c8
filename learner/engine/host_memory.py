"""How much memory this process may still take: of the machine, within its control groups.

A control group counts files that were read as used, although the kernel gives that memory back as
soon as somebody wants it; here it counts as free, as it does in MemAvailable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number above this where there is no limit."""
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """Bytes of memory.

    Attributes:
        total: there are, or the tightest limit of a control group.
        available: can be taken without anything being swapped or killed.
    """

    total: int
    available: int


def host_memory(proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> HostMemory:
    """What the machine has, and what every control group above this process leaves of it."""
    rows = _rows(proc / "meminfo")
    total, available = (rows[name] << 10 for name in ("MemTotal", "MemAvailable"))
    for limit, used in _limits(proc, mounts):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return HostMemory(total=total, available=available)


def _limits(proc: Path, mounts: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each group that has a limit, what can be reclaimed left out of the use."""
    for folder, names in _groups(proc, mounts):
        try:
            limit = (folder / names[0]).read_text().strip()
            if limit == "max" or int(limit) >= _NO_LIMIT:
                continue
            used = int((folder / names[1]).read_text())
            yield int(limit), max(0, used - _reclaimable(folder))
        except (OSError, ValueError):
            continue


def _reclaimable(folder: Path) -> int:
    rows = _rows(folder / "memory.stat")
    # Version 1 has a row of this group alone and one, "total_", with the groups below.
    return sum(rows.get(f"total_{name}", rows.get(name, 0)) for name in _RECLAIMABLE)


def _groups(proc: Path, mounts: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """The folders of the groups above this process, and what their files are called."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = mounts / "unified" if (mounts / "unified").is_dir() else mounts
            names = ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = mounts / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's, of which only the mounted part is seen.
        relative = PurePosixPath(path.lstrip("/"))
        for part in (relative, *relative.parents):
            yield root / part, names


def _rows(path: Path) -> dict[str, int]:
    """Files of lines like ``MemTotal:  123 kB`` and ``inactive_file 123``."""
    words = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdecimal()}
