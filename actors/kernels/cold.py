"""The launcher where user namespaces cannot be nested: one bubblewrap per kernel (level B).

The same notebook shell and frames as the forked kernels, but each kernel starts its own Python.
"""

import subprocess

from actors.kernels import bubblewrap
from actors.kernels.forked.launcher import preloaded
from actors.kernels.limits.wardens import sandbox_limits
from actors.kernels.runtime import RuntimePaths
from actors.kernels.single_process import Plan, SingleLauncher, single_command


class ColdLauncher(SingleLauncher):
    """Starts a sandbox and a Python per kernel."""

    level = "B-cold"

    async def start(self) -> None:
        """Check the sandbox; see ``interface.Launcher``."""
        await super().start()
        assert self._runtime is not None  # noqa: S101 - found just now
        bubblewrap.check_sandbox(self._runtime)

    def _plan(self, runtime: RuntimePaths, uid: int) -> Plan:
        config = self._config
        sandbox = bubblewrap.OuterSandbox(
            runtime=runtime, workspace_mib=config.workspace_mib, as_init=True
        )
        command = single_command(
            bubblewrap.PYTHON, sandbox_limits(config), "sandboxed", "/workspace", preloaded(config)
        )

        def start(control: int, errors: int) -> "subprocess.Popen[bytes]":
            return bubblewrap.start(sandbox, command, uid=uid, stdin=control, stderr=errors)

        return Plan(start=start)
