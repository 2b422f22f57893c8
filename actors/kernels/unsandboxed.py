"""Kernels without any sandbox, for machines that can start none (level D). Unsafe.

Cells run as this user, or as an unprivileged one if this user is root. They see its files, its
network and its other processes.
"""

import logging
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from actors.kernels.bubblewrap import HOST_UID, drop_privileges, environment
from actors.kernels.forked.launcher import preloaded
from actors.kernels.limits.wardens import sandbox_limits
from actors.kernels.runtime import RuntimePaths
from actors.kernels.single_process import Plan, SingleLauncher, single_command

_LOGGER = logging.getLogger(__name__)


class UnsandboxedLauncher(SingleLauncher):
    """Starts kernels as plain child processes."""

    level = "D-unsandboxed"
    _kill_signal = signal.SIGTERM
    _private_files = False

    async def start(self) -> None:
        """Warn; see ``interface.Launcher``."""
        await super().start()
        _LOGGER.warning(
            "NO SANDBOX: cells that a model writes run as plain processes of user id %s on this "
            "machine (kernel.minimum_level = 'unsafe')",
            self._users(),
        )

    def _users(self) -> str:
        source = self._wardens.uids.source
        if source is not None and os.geteuid() == 0:
            return str(source.ids)
        return str(os.geteuid() or HOST_UID)

    def _plan(self, runtime: RuntimePaths, uid: int) -> Plan:
        folder = Path(tempfile.mkdtemp(prefix="lzero-kernel-"))
        if os.geteuid() == 0:
            os.chown(folder, uid, uid)
        limits = replace(sandbox_limits(self._config), processes=0)
        python = str(runtime.prefix / "bin" / "python3")
        command = single_command(python, limits, "bare", str(folder), preloaded(self._config))
        variables = _environment(runtime, folder)

        def start(control: int, errors: int) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [*drop_privileges(uid), *command],
                stdin=control,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=variables,
                cwd=folder,
                start_new_session=True,
            )

        return Plan(start=start, clean_up=lambda: shutil.rmtree(folder, ignore_errors=True))


def _environment(runtime: RuntimePaths, folder: Path) -> dict[str, str]:
    """The sandbox's environment with the host's paths."""
    inside = environment(runtime)
    library_path = inside["LD_LIBRARY_PATH"].replace("/opt/rt", str(runtime.prefix))
    return {
        **inside,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / ".ipython"),
        "PATH": f"{runtime.prefix}/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": library_path,
        "PYTHONPATH": str(runtime.sources),
    }
