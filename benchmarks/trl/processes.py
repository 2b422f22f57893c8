"""Runs the command of one side, and counts its processes while it lives."""

import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_tree import descendants
from common.child_process import child_command, module_environment
from common.errors import RunError

_LOOK_S = 0.5
_LAST_WORDS = 2000


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command took.

    Attributes:
        seconds: by the clock.
        cpu_s: of processors, of all of its processes.
        processes: most that lived at once.
    """

    seconds: float
    cpu_s: float
    processes: int


def run_counted(module: str, *arguments: str, folder: Path, cores: int) -> Ran:
    """Run a module of ours in ``folder``, on the cores that this process is on.

    Args:
        module: what is run, with its ``arguments``.
        folder: its working directory.
        cores: how many those are, told to libraries of threads.

    Raises:
        RunError: it failed; quotes its last words.
    """
    command = child_command(module, *arguments)
    began, used, most = time.perf_counter(), _children_cpu_s(), 1
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(cores),
            stdout=said,
            stderr=said,
        )
        try:
            while not _ends(process):
                most = max(most, 1 + len(descendants(process.pid)))
        finally:
            process.terminate()
            process.wait()
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise RunError(f"{' '.join((module, *arguments))} failed: {words[-_LAST_WORDS:]}")
    return Ran(seconds=time.perf_counter() - began, cpu_s=_children_cpu_s() - used, processes=most)


def stay_on(cores: int) -> None:
    """Keep this process, and what it starts from now on, on as many cores as that."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _ends(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=_LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _children_cpu_s() -> float:
    """Of all processes below this one that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _environment(cores: int) -> dict[str, str]:
    """Nothing is fetched from the network."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return module_environment({**os.environ, **quiet, "OMP_NUM_THREADS": str(cores)})
