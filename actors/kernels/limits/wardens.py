"""What enforces the limits of whole sandboxes, for all kernels of one launcher."""

import logging
import math
from pathlib import Path

from actors.kernels.limits.cgroup import Cage, CageLimits, Cages, NoCgroupError, own_cgroup
from actors.kernels.limits.host_uids import HostUids
from actors.kernels.limits.procfs import host_pid
from actors.kernels.limits.watchdog import UseLimits, Watchdog
from actors.kernels.sandboxed.isolation import Limits
from common.config import Kernel as KernelConfig

_LOGGER = logging.getLogger(__name__)


class Wardens:
    """Control groups where we may make them, the watchdog for the rest, and user ids."""

    def __init__(self, config: KernelConfig) -> None:
        """Make them; nothing runs before ``open`` and the first watched kernel."""
        self._config = config
        self._cages: Cages | None = None
        limits = UseLimits(
            sandbox_memory_mib=config.sandbox_memory_mib, cpu_s=config.cpu_s, files=config.inodes
        )
        self.watchdog = Watchdog(limits)
        self.uids = HostUids(config.first_uid, config.uids)

    def open(self) -> None:
        """Find out whether there can be control groups."""
        config = self._config
        limits = CageLimits(
            sandbox_memory_mib=config.sandbox_memory_mib, processes=config.processes
        )
        if self._cages is not None:
            return
        try:
            parent = Path(config.cgroup) if config.cgroup else own_cgroup()
            self._cages = Cages(parent, limits)
        except NoCgroupError as reason:
            level = logging.WARNING if config.cgroup else logging.INFO
            _LOGGER.log(level, "kernels get no control groups, the watchdog alone: %s", reason)

    def cage(self, name: str, pidfds: tuple[int, ...]) -> Cage | None:
        """Put a fresh kernel into a group of its own; None where there are no groups."""
        if self._cages is None:
            return None
        try:
            cage = self._cages.make(name)
            cage.add([host_pid(pidfd) for pidfd in pidfds])
        except OSError as error:
            _LOGGER.warning("kernel=%s got no control group: %s", name, error)
            return None
        return cage

    async def close(self) -> None:
        """Stop watching and remove the groups; the kernels must be gone."""
        await self.watchdog.close()
        if self._cages is not None:
            self._cages.close()
            self._cages = None


def sandbox_limits(config: KernelConfig) -> Limits:
    """The limits that a sandbox sets for itself."""
    return Limits(
        memory_mib=config.memory_mib,
        workspace_mib=config.workspace_mib,
        processes=config.processes,
        inodes=config.inodes,
        cpu_s=math.ceil(config.cpu_s),
        file_mib=config.workspace_mib,
    )
