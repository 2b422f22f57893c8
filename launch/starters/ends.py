"""How a process ended: its exit status in words, its last lines, whether memory ran out."""

import os
import signal
from pathlib import Path

LAST_LINES = 15
_TAIL_BYTES = 20_000
OUT_OF_MEMORY = (
    "meanwhile the system killed a process for want of memory (oom_kill in /proc/vmstat counts "
    "sandboxes at their own limit, too); if that was the cause, lower learner.pack_tokens, "
    "policy_server.memory_gib or actors.episodes, or end what else runs here"
)


def killed_for_memory(counters: Path = Path("/proc/vmstat")) -> int:
    """How many processes the system has killed since it started because memory ran out."""
    try:
        rows = dict(line.split() for line in counters.read_text().splitlines())
        return int(rows.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def describe_exit(status: int) -> str:
    """How a process ended, in words; 128 + n means signal n."""
    number = -status if status < 0 else status - 128
    if status < 0 or status > 128:
        try:
            return f"was ended by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"ended with exit code {status}"


def last_lines(log: Path, *, start: int = 0) -> list[str]:
    """Those in the end of a log file (20 kB) from byte ``start``, without empty ones."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()]
