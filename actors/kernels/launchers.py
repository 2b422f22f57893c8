"""Makes the launcher that a configuration names."""

from actors.kernels.forked import ForkedLauncher
from actors.kernels.interface import Launcher
from actors.kernels.jupyter import JupyterLauncher
from common.config import Kernel


def make_launcher(config: Kernel) -> Launcher:
    """The launcher ``config.launcher``, not started yet."""
    return JupyterLauncher(config) if config.launcher == "jupyter" else ForkedLauncher(config)
