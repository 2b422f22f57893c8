"""CPU time of this process and everything it starts, by a control group of its own."""

import contextlib
import os
import time
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
_CLOSE_TIMEOUT_S = 5.0


class CpuMeter:
    """Counts CPU milliseconds since it was made; ``None`` where control groups cannot be made."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        for base, test in ((_V1, "cpuacct.usage"), (_V2, "cpu.stat")):
            if not (base / test).exists():
                continue
            folder = base / f"lzero-bench-{os.getpid()}"
            try:
                folder.mkdir()
                (folder / "cgroup.procs").write_text(str(os.getpid()))
            except OSError:
                continue
            self._base, self._folder = base, folder
            return

    def read_ms(self) -> float | None:
        """CPU milliseconds used so far."""
        if self._folder is None:
            return None
        usage = self._folder / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e6
        first = (self._folder / "cpu.stat").read_text().splitlines()[0]
        return int(first.split()[1]) / 1e3

    def close(self) -> None:
        """Remove the control group; processes that are still in it go back, too."""
        if self._folder is None:
            return
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while True:
            for pid in (self._folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (self._base / "cgroup.procs").write_text(pid)
            try:
                self._folder.rmdir()
                break
            except OSError:  # a process that ends just now
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._folder = None
