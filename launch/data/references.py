"""Runs the reference programs of tasks in sandboxes; ``lzero tasks check --run-references``."""

import asyncio
import os
from collections.abc import Sequence

from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.rewards.programs.program import program_of
from actors.rewards.programs.sandboxed import passes
from common.config import Kernel
from common.wire.records import Task


async def failing_references(tasks: Sequence[Task], kernel: Kernel) -> tuple[int, list[str]]:
    """How many reference programs were run, and the ids of the tasks whose own does not pass.

    Raises:
        MachineError: no sandbox can be started here.
    """
    with_reference = [task for task in tasks if task.kind == "code" and task.answers]
    pool = KernelPool(make_launcher(kernel), idle=2)
    places = asyncio.Semaphore(os.cpu_count() or 1)

    async def fails(task: Task) -> bool:
        async with places:
            return not await passes(program_of(task, task.answers[0]), pool)

    try:
        await pool.start()
        failed = await asyncio.gather(*map(fails, with_reference))
    finally:
        await pool.close()
    named = [task.task_id for task, bad in zip(with_reference, failed, strict=True) if bad]
    return len(with_reference), named
