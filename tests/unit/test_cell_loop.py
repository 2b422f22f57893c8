"""Which cells run inside of a running event loop."""

import pytest

from actors.kernels.sandboxed.cellloop import needs_loop


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\ntask = asyncio.create_task(work())",
        "from asyncio import create_task\ncreate_task(work())",
        "def start():\n    return asyncio.create_task(work())\nstart()",
        "both = asyncio.gather(one(), two())",
        "loop = asyncio.get_event_loop()",
        "asyncio.get_running_loop().create_task(work())",
        "import subprocess\nsubprocess.run(['true'])\nasyncio.create_task(work())",
    ],
)
def test_a_cell_that_starts_tasks_needs_a_running_loop(code):
    assert needs_loop(code)


@pytest.mark.parametrize(
    "code",
    [
        "1 + 1",
        "# asyncio.create_task is not called",
        "async def main():\n    asyncio.create_task(work())\nasyncio.run(main())",
        "async def main():\n    asyncio.create_task(work())",
        "loop = asyncio.get_event_loop()\nloop.run_until_complete(work())",
        "with asyncio.Runner() as runner:\n    runner.run(asyncio.gather())",
        "service.create_task('a task of something else')",
        "asyncio.create_task(",
        "asyncio.create_task(" + "(" * 5000,
        "asyncio.create_task\0",
    ],
)
def test_other_cells_run_outside_of_it(code):
    assert not needs_loop(code)
