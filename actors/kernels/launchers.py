"""Makes the launcher that a configuration names, or the best one that the machine allows."""

import logging
from collections.abc import Callable

from actors.kernels.bubblewrap import advice
from actors.kernels.cold import ColdLauncher
from actors.kernels.forked.launcher import ForkedLauncher
from actors.kernels.interface import KernelDiedError, Launcher, LiveKernel
from actors.kernels.unsandboxed import UnsandboxedLauncher
from actors.mending import Mending
from common.config import Kernel as KernelConfig
from common.errors import MachineError

_LOGGER = logging.getLogger(__name__)


def make_launcher(config: KernelConfig, mending: Mending | None = None) -> "ChosenLauncher":
    """The launcher that ``config.launcher`` names, not started yet.

    ``mending`` hears of what it starts again.
    """
    names = ("forked", "cold") if config.launcher == "auto" else (config.launcher,)
    return ChosenLauncher({name: _MAKERS[name](config, mending) for name in names}, config)


def _make_forked(config: KernelConfig, mending: Mending | None) -> Launcher:
    return ForkedLauncher(config, mending=mending)


def _make_cold(config: KernelConfig, mending: Mending | None) -> Launcher:
    return ColdLauncher(config)


def _make_jupyter(config: KernelConfig, mending: Mending | None) -> Launcher:
    from actors.kernels.jupyter.launcher import JupyterLauncher

    return JupyterLauncher(config)


_MAKERS: dict[str, Callable[[KernelConfig, Mending | None], Launcher]] = {
    "forked": _make_forked,
    "cold": _make_cold,
    "jupyter": _make_jupyter,
}


class ChosenLauncher:
    """The first of several launchers that starts; see ``interface.Launcher``."""

    def __init__(self, candidates: dict[str, Launcher], config: KernelConfig) -> None:
        """Choose among ``candidates``, best first, when started."""
        self._candidates = candidates
        self._config = config
        self._name, self._chosen = next(iter(candidates.items()))

    @property
    def name(self) -> str:
        """``forked``, ``cold``, ``jupyter`` or ``unsandboxed``."""
        return self._name

    @property
    def level(self) -> str:
        """Isolation level of its kernels."""
        return self._chosen.level

    async def start(self) -> None:
        """Start the first candidate that can be started, and can launch a kernel.

        Raises:
            MachineError: none can, or those that can are below ``kernel.minimum_level``.
        """
        problems = []
        for name, launcher in self._candidates.items():
            problem = self._too_low(name, launcher.level) or await _try(name, launcher)
            if problem is None:
                self._choose(name, launcher)
                return
            problems.append(problem)
            _LOGGER.warning("launcher=%s cannot be used: %s", name, problem)
        if self._config.minimum_level != "unsafe":
            raise MachineError("; ".join(problems))
        launcher = UnsandboxedLauncher(self._config)
        await launcher.start()
        self._choose("unsandboxed", launcher)

    async def launch(self) -> LiveKernel:
        """Start a fresh kernel; see ``interface.Launcher``."""
        return await self._chosen.launch()

    async def close(self) -> None:
        """End everything that was started; see ``interface.Launcher``."""
        await self._chosen.close()

    def _choose(self, name: str, launcher: Launcher) -> None:
        self._name, self._chosen = name, launcher
        _LOGGER.info("kernels launcher=%s level=%s", name, launcher.level)

    def _too_low(self, name: str, level: str) -> str | None:
        minimum = self._config.minimum_level
        if level[0] <= minimum:
            return None
        return (
            f"launcher {name!r} isolates at level {level[0]}, kernel.minimum_level is "
            f'{minimum}; set kernel.launcher = "forked" or kernel.minimum_level = "{level[0]}"'
        )


async def _try(name: str, launcher: Launcher) -> str | None:
    """Start it and, where that is quick, a kernel; what went wrong, or None."""
    try:
        await launcher.start()
        if name != "jupyter":
            await (await launcher.launch()).close()
    except MachineError as fault:
        await launcher.close()
        return str(fault)
    except KernelDiedError as death:
        await launcher.close()
        return f"{death}. {advice(str(death))}"
    except BaseException:
        await launcher.close()
        raise
    return None
