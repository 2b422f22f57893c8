"""The processes below a process, and whether they still live."""

import time
from pathlib import Path


def descendants(root):
    """Pids of all live descendants of ``root``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found, grew = {root}, True
    while grew:
        fresh = {pid for pid, parent in parents.items() if parent in found} - found
        found |= fresh
        grew = bool(fresh)
    return found - {root}


def alive(pids):
    return {pid for pid in pids if _state(pid) not in (None, "Z")}


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def wait_until_dead(pids, within_s):
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive(pids)
