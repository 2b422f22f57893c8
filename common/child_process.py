"""How a Python process of ours is started: with this checkout's code, and dead with its parent.

``subprocess.run(child_command(MODULE, ...), env=module_environment(os.environ))`` is all
of it. Who is watched over by a guard (``launch.starters``) needs ``module_command`` only.
"""

import ctypes
import os
import runpy
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


def child_command(module: str, *arguments: str) -> tuple[str, ...]:
    """What runs a module of ours as a child that the system kills when this process ends.

    The signal follows the *thread* that starts the child: start it from one that stays.
    """
    return module_command("common.child_process", str(os.getpid()), module, *arguments)


def module_environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with this checkout first on ``PYTHONPATH``."""
    rest = [base["PYTHONPATH"]] if base.get("PYTHONPATH") else []
    return {**base, "PYTHONPATH": os.pathsep.join([str(SOURCE_ROOT), *rest])}


def main() -> None:
    """In the child: die with the parent, be the module."""
    parent, module, *arguments = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
