"""Kills an actor with running kernels and looks what is left of it."""

import asyncio
import contextlib
import sys
import time

from benchmarks.process_tree import descendants
from benchmarks.report import REPOSITORY

_START_TIMEOUT_S = 60.0
_LEFTOVERS_AFTER_S = 0.25
_GONE_TIMEOUT_S = 10.0


async def leftovers(launcher_name: str, kernels: int) -> tuple[int, float]:
    """What is left of an actor's processes after SIGKILL, and when all are gone.

    Returns:
        Processes that still run 250 ms after the kill, and milliseconds until none does.
    """
    actor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.kernels.actor", launcher_name, str(kernels)),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert actor.stdout is not None
    try:
        line = await asyncio.wait_for(actor.stdout.readline(), _START_TIMEOUT_S)
        if line.strip() != b"ready":
            raise RuntimeError("the actor to be killed did not come up")
        below = descendants(actor.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            actor.kill()
    killed = time.perf_counter()
    await actor.wait()
    left = None
    while running := sum(process.alive for process in below):
        waited = time.perf_counter() - killed
        if left is None and waited > _LEFTOVERS_AFTER_S:
            left = running
        if waited > _GONE_TIMEOUT_S:
            break
        await asyncio.sleep(0.005)
    return left or 0, (time.perf_counter() - killed) * 1000
