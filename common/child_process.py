"""How a child process of ours is started: with this checkout's code, and dead with its parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds ``actors``, ``common``, ``launch`` and ``learner``, installed or not."""

_PR_SET_PDEATHSIG = 1


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """What runs a module of ours; the working directory is not searched for it.

    Give the child ``module_environment`` too, or an installed copy may be found instead of this.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def module_environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with this checkout first on ``PYTHONPATH``."""
    rest = [base["PYTHONPATH"]] if base.get("PYTHONPATH") else []
    return {**base, "PYTHONPATH": os.pathsep.join([str(SOURCE_ROOT), *rest])}


def die_with_parent(parent_pid: int) -> None:
    """Have the system kill this process when ``parent_pid`` ends; at once if it has already.

    The signal follows the *thread* that started this process: start it from one that stays.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)
