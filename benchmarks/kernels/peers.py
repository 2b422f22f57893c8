"""What our kernels are compared with: stock Jupyter, and one cold worker per episode."""

import asyncio
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

_TIMEOUT_S = 120
_STOCK_DESCRIPTORS = 24
_STOCK_MIB = 110
_WORKER = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
shell.run_cell(sys.argv[1])
print("done", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class StockKernel:
    """An ipykernel without a sandbox, as jupyter_client starts and drives it."""

    manager: AsyncKernelManager
    client: AsyncKernelClient

    @property
    def pid(self) -> int:
        """Of the kernel process."""
        return int(self.manager.provisioner.pid)

    async def execute(self, code: str) -> list[dict[str, Any]]:
        """Run a cell, wait for its reply and for all its output."""
        outputs: list[dict[str, Any]] = []
        reply = await self.client.execute_interactive(
            code, output_hook=outputs.append, timeout=_TIMEOUT_S, allow_stdin=False
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"a cell of the stock kernel failed: {reply['content']}")
        return outputs

    async def close(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy(linger=0)


async def launch_stock() -> StockKernel:
    """Start one with everything at its default but its log, and wait until it is ready."""
    manager = AsyncKernelManager(kernel_name="python3")
    await manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=_TIMEOUT_S)
    return StockKernel(manager, client)


def affordable_stock_kernels(wanted: int) -> int:
    """As many of ``wanted`` as free memory and the limit of open files allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    by_files = (hard - 256) // _STOCK_DESCRIPTORS if hard > 0 else wanted
    lines = Path("/proc/meminfo").read_text().splitlines()
    free_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return max(1, min(wanted, by_files, free_kib // 2 // 1024 // _STOCK_MIB))


@dataclass(frozen=True)
class ColdWorker:
    """One bubblewrap and one Python per episode, with the host's network and files."""

    process: asyncio.subprocess.Process

    async def close(self) -> None:
        """Kill it."""
        self.process.kill()
        await self.process.wait()


async def launch_worker(cell: str) -> ColdWorker:
    """Start a worker that imports IPython and runs ``cell``; returns when it has."""
    options = "--ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --unshare-pid"
    options += " --die-with-parent --new-session --share-net"
    process = await asyncio.create_subprocess_exec(
        *(
            "bwrap",
            *options.split(),
            "--ro-bind",
            sys.prefix,
            sys.prefix,
            "--",
            sys.executable,
            "-c",
            _WORKER,
            cell,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "IPYTHONDIR": "/tmp/ipython"},
    )
    assert process.stdout is not None
    seen = b""
    while b"done" not in seen:
        line = await asyncio.wait_for(process.stdout.readline(), _TIMEOUT_S)
        if not line:
            raise RuntimeError(f"the cold worker ended with status {await process.wait()}")
        seen += line
    return ColdWorker(process)
