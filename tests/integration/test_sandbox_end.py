"""What a sandbox leaves behind where nobody collects orphans."""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

import pytest
import uvloop

from actors.kernels.launchers import make_launcher
from common.config import Kernel

pytestmark = pytest.mark.sandbox
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def adopts_orphans():
    """This process gets them and leaves them, as pid 1 of many a container does."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = children()
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for pid in children() - before:
        os.waitpid(pid, os.WNOHANG)


def children():
    """Living and dead ones."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.mark.parametrize("name", ["forked", "cold", "jupyter"])
def test_a_kernel_that_is_closed_leaves_no_process(adopts_orphans, name):
    async def live():
        launcher = make_launcher(Kernel(launcher=name))
        await launcher.start()
        await (await launcher.launch()).close()
        before = children()
        kernel = await launcher.launch()
        await kernel.execute("1", timeout_s=10)
        await kernel.close()
        left = children() - before
        await launcher.close()
        return left

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(live()) == set()


@pytest.mark.parametrize("name", ["cold", "jupyter"])
def test_a_kernel_that_does_not_start_leaves_no_process(adopts_orphans, name):
    async def fail():
        launcher = make_launcher(Kernel(launcher=name))
        await launcher.start()
        before = children()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(launcher.launch(), 0.1)
        left = children() - before
        await launcher.close()
        return left

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(fail()) == set()
