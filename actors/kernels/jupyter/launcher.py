"""The launcher for any Jupyter kernel, one sandbox per kernel (level B).

Ten to twenty times slower to start than the forked kernels. An IPython kernel is run with a kernel
class of ours, so that cells behave as in the other launchers; other kernels run as they are.
"""

import itertools
import os
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from actors.kernels.bubblewrap import check_sandbox
from actors.kernels.jupyter.kernel import LEVEL, JupyterKernel
from actors.kernels.jupyter.provisioner import LIMITS, UIDS
from actors.kernels.limits.wardens import Wardens, sandbox_limits
from actors.kernels.runtime import find_runtime
from common.config import Kernel as KernelConfig
from common.errors import MachineError
from common.wire.sockets import AsyncContext, bounded_context

KERNELSPEC = Path(__file__).resolve().parent / "kernelspec"
"""The kernelspec ``lzero-sandbox``, installed with the package."""
_OWN_NAME = "lzero-sandbox"
_LARGEST_MESSAGE_BYTES = 4 << 20
_MESSAGES_HELD = 8
_WORST_JSON_ESCAPE = 6
_REST_OF_MESSAGE_BYTES = 64 << 10
_KERNEL_CLASS = "IPKernelApp.kernel_class"


class JupyterLauncher:
    """Starts Jupyter kernels of one kernelspec."""

    level = LEVEL

    def __init__(self, config: KernelConfig) -> None:
        """Make a launcher; nothing is started before ``launch``."""
        self._config = config
        self._context: AsyncContext | None = None
        self._wardens = Wardens(config)
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Check the sandbox and the kernelspec; see ``interface.Launcher``."""
        check_sandbox(find_runtime())
        self._wardens.open()
        try:
            self._specification()
        except NoSuchKernel:
            raise MachineError(
                f"there is no Jupyter kernel '{self._config.kernelspec}' (kernel.kernelspec); "
                "`jupyter kernelspec list` names those installed"
            ) from None

    async def launch(self) -> JupyterKernel:
        """Start a fresh kernel; see ``interface.Launcher``."""
        kernel_id = f"{os.getpid()}-{next(self._numbers)}"
        specification = self._specification()
        observed = bool({"ipykernel", "ipykernel_launcher"} & {*specification.argv})
        manager = self._manager(specification, observed)
        kernel = JupyterKernel(kernel_id, manager, self._config, self._wardens, observed=observed)
        try:
            await kernel.start()
        except BaseException:
            await kernel.close()
            raise
        return kernel

    async def close(self) -> None:
        """Close what all kernels shared; they are closed by their owners."""
        await self._wardens.close()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _specification(self) -> KernelSpec:
        """The configured kernelspec; ours is found even where nothing was installed."""
        if self._config.kernelspec == _OWN_NAME:
            return KernelSpec.from_resource_dir(str(KERNELSPEC))
        specification = AsyncKernelManager(kernel_name=self._config.kernelspec).kernel_spec
        assert specification is not None  # noqa: S101 - only for an empty name
        return specification

    def _manager(self, specification: KernelSpec, observed: bool) -> AsyncKernelManager:
        every = sandbox_limits(self._config)
        limits = {name: getattr(every, name) for name in LIMITS}
        limits |= {name: getattr(self._config, name) for name in UIDS}
        specification.metadata = {
            **specification.metadata,
            "kernel_provisioner": {
                "provisioner_name": "lzero-bwrap",
                "config": {**limits, "capture": observed},
            },
        }
        if observed:
            specification.interrupt_mode = "signal"
            specification.argv = [part for part in specification.argv if _KERNEL_CLASS not in part]
        manager = AsyncKernelManager(
            kernel_name=self._config.kernelspec, context=self._zmq(observed)
        )
        manager._kernel_spec = specification
        return manager

    def _zmq(self, observed: bool) -> AsyncContext:
        """Sockets that hold few messages and refuse large ones: kernels may flood us."""
        if self._context is None:
            largest = _WORST_JSON_ESCAPE * self._config.output_bytes + _REST_OF_MESSAGE_BYTES
            largest = largest if observed else max(largest, _LARGEST_MESSAGE_BYTES)
            self._context = bounded_context(part_bytes=largest, queued_in=_MESSAGES_HELD)
        return self._context
