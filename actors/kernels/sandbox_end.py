"""Ending what bubblewrap started, so that nothing of it is left.

Bubblewrap waits for the first process of its sandbox, which belongs to the sandbox's user id. If
bubblewrap ends first, that process is left, dead, to whoever collects orphans here; where nobody
does, as in many containers, its user id would be in use for good.
"""

import asyncio
import contextlib
import os
import signal
import subprocess

from actors.kernels.descriptors import readable
from actors.kernels.limits.procfs import read

_COLLECTED_S = 1.0
"""Within this time after its sandbox bubblewrap ends too, or is ended."""

Process = subprocess.Popen[bytes]


def kill(process: Process) -> None:
    """Kill the sandbox, or bubblewrap itself if there is none yet; ``end`` must follow."""
    if process.poll() is None and not _kill_children(process.pid):
        process.kill()


async def end(process: Process) -> None:
    """Kill the sandbox, and wait until bubblewrap has collected it."""
    kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_COLLECTED_S):
            await _ended(process)
    if process.poll() is None:
        process.kill()
        await _ended(process)


async def _ended(process: Process) -> None:
    if process.poll() is not None:
        return
    handle = os.pidfd_open(process.pid)
    try:
        await readable(handle)
    finally:
        os.close(handle)
    process.wait()


def _kill_children(pid: int) -> bool:
    children = read(f"/proc/{pid}/task/{pid}/children").split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    return bool(children)
