"""Processes below this one: which there are, what memory they hold, and whether they are gone."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_MEBIBYTE = 1 << 20
_PARENT, _USER, _SYSTEM, _STARTED = 1, 11, 12, 19
"""Fields of /proc/PID/stat, counted after the command's closing bracket; see proc(5)."""


@dataclass(frozen=True)
class Process:
    """One process; ``started`` tells it from a later one of the same number."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] != "Z" and int(fields[_STARTED]) == self.started


def descendants(root: int) -> list[Process]:
    """All processes below ``root``."""
    children = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children[int(fields[_PARENT])].append(Process(int(name), int(fields[_STARTED])))
    found, waiting = [], [root]
    while waiting:
        below = children[waiting.pop()]
        found += below
        waiting += [process.pid for process in below]
    return found


def pss_mib(processes: list[Process]) -> float:
    """Proportional set size: private memory and a fair share of what is shared, MiB."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / _MEBIBYTE


def cpu_ms(pids: list[int]) -> float:
    """CPU time that these processes have used so far, milliseconds."""
    fields = [_stat(pid) for pid in pids]
    ticks = sum(int(of[_USER]) + int(of[_SYSTEM]) for of in fields if of)
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
