"""What this machine's processor can do for a process, as Linux tells it."""

import os
from pathlib import Path

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names, in /proc/cpuinfo, of instructions that multiply bfloat16; the last one is ARM's."""

_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Processors that this process may use at once, at least 1; a quota of its cgroup counts."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota(_QUOTA)))


def bfloat16_instructions(cpuinfo: Path = _CPUINFO) -> list[str]:
    """Which of BFLOAT16 the processor has, in order; none where nothing can be found out."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return []
    listed = (line.partition(":") for line in lines)
    flags = next((text for key, _, text in listed if key.strip() in ("flags", "Features")), "")
    return sorted(BFLOAT16.intersection(flags.split()))


def _quota(file: Path) -> int:
    """Whole processors that the cgroup grants; a great many without a limit."""
    try:
        granted, period = file.read_text().split()
        return 1 << 16 if granted == "max" else int(granted) // int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 16
