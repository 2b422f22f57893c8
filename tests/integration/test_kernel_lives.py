"""How kernels live and die, and that nothing of them survives."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.kernels import runtime
from actors.kernels.interface import CellStatus, KernelDiedError
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.mending import Mending
from common.config import Kernel
from common.errors import MachineError
from tests.process_tree import descendants, wait_until_dead

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = Kernel(grace_s=0.4, memory_mib=512)


def test_a_loop_in_c_is_killed_and_only_its_kernel_dies(launch):
    victim, bystander = launch(), launch()
    started = time.monotonic()

    with pytest.raises(KernelDiedError, match="ignored the interrupt"):
        victim.run("sum(range(10**13))", timeout_s=0.1)

    assert time.monotonic() - started < 10
    assert bystander.value("1 + 1") == "2"
    with pytest.raises(KernelDiedError):
        victim.run("1")


def test_a_flood_of_output_costs_the_host_nothing(notebook):
    result = notebook.run("while True: print('x' * 10**6)", timeout_s=0.3)

    assert result.status is CellStatus.TIMED_OUT
    assert len(result.output) < 66_000
    assert result.dropped_bytes > 10**6


def test_a_fork_bomb_hits_the_process_limit(launch):
    victim, bystander = launch(), launch()
    code = """
        import os, signal, time
        children = []
        try:
            for _ in range(200):
                pid = os.fork()
                if pid == 0:
                    time.sleep(60)
                    os._exit(0)
                children.append(pid)
        except BlockingIOError:
            print("stopped at", len(children))
    """
    assert victim.value(code).startswith("stopped at 6")
    assert bystander.value("import subprocess\nsubprocess.run(['true']).returncode") == "0"


@pytest.mark.parametrize(
    "bytes_sent",
    [
        "b'\\xff' * 8",
        "b'\\x00\\x00\\x00\\x01\\xc1'",
        "frame(['done', 99, 'ok', '', 0, None, 0])",
        "frame(['ready'])",
        "frame(['filed', None])",
        "frame(['call', 1, 'search', 7, {}])",
        "b'\\x00\\x0f\\xff\\xff' + bytes(2 << 20)",
    ],
)
def test_forged_frames_kill_only_the_forger(launch, bytes_sent):
    forger, bystander = launch(), launch()
    code = f"""
        import os, msgpack, time
        def frame(message):
            body = msgpack.packb(message)
            return len(body).to_bytes(4, "big") + body
        os.write(3, {bytes_sent})
        time.sleep(30)
    """
    with pytest.raises(KernelDiedError, match="protocol"):
        forger.run(code)

    assert bystander.value("1 + 1") == "2"


def test_a_kernel_that_exits_is_reported_dead_at_once(notebook):
    started = time.monotonic()

    with pytest.raises(KernelDiedError):
        notebook.run("import os\nos._exit(0)")

    assert time.monotonic() - started < 10


def test_forks_have_random_states_of_their_own(launch):
    code = "import random, numpy\n(random.random(), numpy.random.random())"

    assert launch().value(code) != launch().value(code)


def test_the_zygote_is_restarted_when_it_dies_but_not_for_ever(loop_runner, monkeypatch):
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    monkeypatch.setattr("common.restarts.BUDGET", 1)
    told, ended = [], []
    mending = Mending(told.append)
    mending.on_given_up = lambda: ended.append(mending.given_up)
    launcher = make_launcher(CONFIG, mending)

    async def scenario():
        await launcher.start()
        try:
            kernel = await launcher.launch()
            launcher._chosen._zygote._process.kill()
            with pytest.raises(KernelDiedError):
                await kernel.execute("import time\ntime.sleep(20)", timeout_s=30)
            await kernel.close()
            fresh = await launcher.launch()
            assert (await fresh.execute("6 * 7", timeout_s=20)).output == "42\n"
            launcher._chosen._zygote._process.kill()
            for _ in range(2):
                with pytest.raises(MachineError, match=r"was killed by SIGKILL, after .* restarts"):
                    await launcher.launch()
        finally:
            await launcher.close()

    loop_runner.run(scenario())
    (text,) = told
    assert text.startswith("the template process of the kernels was killed by SIGKILL; ")
    assert len(ended) == 1


def test_a_launcher_that_waits_for_another_zygote_is_closed_at_once(loop_runner, monkeypatch):
    monkeypatch.setattr("common.restarts.FIRST_S", 60)
    told = asyncio.Event()
    launcher = make_launcher(CONFIG, Mending(lambda text: told.set()))

    async def scenario():
        await launcher.start()
        launcher._chosen._zygote._process.kill()
        launching = asyncio.create_task(launcher.launch())
        await asyncio.wait_for(told.wait(), 20)
        await asyncio.wait_for(launcher.close(), 20)
        with pytest.raises(KernelDiedError, match="the launcher is closed"):
            await launching

    loop_runner.run(scenario())


def test_a_pool_serves_fresh_kernels_and_leaves_nothing(loop_runner):
    before = set(os.listdir("/tmp"))

    async def scenario():
        pool = KernelPool(make_launcher(CONFIG), idle=2)
        await pool.start()
        seen = []
        try:
            for _ in range(4):
                async with pool.slot() as kernel:
                    result = await kernel.execute("globals().get('x', 0)", timeout_s=20)
                    await kernel.execute("x = 1", timeout_s=20)
                    seen.append((kernel.kernel_id, result.output))
            pids = descendants(os.getpid())
        finally:
            await pool.close()
        return seen, pids, pool.statistics()

    seen, pids, statistics = loop_runner.run(scenario())

    assert len({kernel for kernel, _ in seen}) == 4
    assert {output for _, output in seen} == {"0\n"}
    assert statistics.hits + statistics.misses == 4
    assert statistics.died == 0
    mine = pids - descendants(os.getpid())
    assert mine
    assert not wait_until_dead(mine, 1)
    assert not {name for name in set(os.listdir("/tmp")) - before if "lzero" in name.lower()}


ACTOR = """
import asyncio, sys
from actors.kernels.launchers import make_launcher
from common.config import Kernel

async def main():
    launcher = make_launcher(Kernel(launcher=sys.argv[1]))
    await launcher.start()
    kernels = [await launcher.launch() for _ in range(int(sys.argv[2]))]
    spin = "import os\\nif os.fork() == 0:\\n    while True: pass\\nwhile True: pass"
    tasks = [asyncio.create_task(kernel.execute(spin, timeout_s=60)) for kernel in kernels]
    await asyncio.sleep(0.1)
    print("running", flush=True)
    await asyncio.gather(*tasks)

asyncio.run(main())
"""


@pytest.mark.parametrize(("launcher", "count"), [("forked", 3), ("cold", 2), ("jupyter", 1)])
def test_nothing_survives_the_actor(launcher, count):
    with subprocess.Popen(
        [sys.executable, "-c", ACTOR, launcher, str(count)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as actor:
        assert actor.stdout.readline() == b"running\n"
        pids = descendants(actor.pid)
        assert len(pids) >= 3
        actor.send_signal(signal.SIGKILL)
        actor.wait()

        assert not wait_until_dead(pids, 1)


def test_a_pool_replaces_kernels_that_died_while_they_waited(loop_runner):
    launcher = make_launcher(CONFIG)

    async def scenario():
        pool = KernelPool(launcher, idle=1)
        await pool.start()
        try:
            while pool.statistics().started < 1:
                await asyncio.sleep(0.005)
            spare = pool._ready[0]
            launcher._chosen._zygote._process.kill()
            while spare.alive:
                await asyncio.sleep(0.005)
            async with pool.slot() as kernel:
                return (await kernel.execute("1 + 1", timeout_s=20)).output
        finally:
            await pool.close()

    assert loop_runner.run(scenario()) == "2\n"


def test_a_closed_pool_turns_waiting_episodes_away(loop_runner):
    async def scenario():
        pool = KernelPool(make_launcher(CONFIG), idle=0, launches_at_once=1)
        await pool.start()

        async def take():
            async with pool.slot() as kernel:
                await kernel.execute("import time\ntime.sleep(30)", timeout_s=60)

        tasks = [asyncio.create_task(take()) for _ in range(3)]
        while pool.statistics().started < 1:
            await asyncio.sleep(0.005)
        await pool.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(outcome) for outcome in loop_runner.run(scenario())} == {KernelDiedError}


def test_a_missing_bubblewrap_is_named_with_its_fix(loop_runner, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MachineError, match="apt-get install bubblewrap"):
        loop_runner.run(make_launcher(CONFIG).start())


def test_a_missing_runtime_asks_for_make_setup(monkeypatch, tmp_path):
    lock = tmp_path / "kernel.lock"
    lock.write_text("# another environment\n")
    monkeypatch.setattr(runtime, "_LOCK", lock)

    with pytest.raises(MachineError, match="make setup"):
        runtime.find_runtime()


def test_making_the_runtime_again_does_nothing(capsys):
    assert runtime.ensure_runtime() == runtime.find_runtime()
    assert capsys.readouterr().out == ""
