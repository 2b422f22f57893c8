"""The kernel class of the kernelspec ``lzero-sandbox``: ipykernel for people."""

import asyncio
import signal

from ipykernel.ipkernel import IPythonKernel


class InteractiveKernel(IPythonKernel):  # type: ignore[misc]
    """An IPython kernel that also notices an interrupt while all its tasks sleep.

    ipykernel handles SIGINT by a callback on its event loop, which does not wake up for that. A
    loop that handles some signal itself wakes up for every one.
    """

    def start(self) -> None:
        """Serve."""
        super().start()
        self.io_loop.add_callback(_wake_on_signals)


async def _wake_on_signals() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGURG, _do_nothing)


def _do_nothing() -> None:
    pass
