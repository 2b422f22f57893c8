"""What the watchdog reads of processes, whom it ends, and what it writes into control groups."""

import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.kernels.cgroup import Cage, CageLimits, Cages, NoCgroup
from actors.kernels.interface import DeathCause
from actors.kernels.procfs import exact_memory_bytes, files_use, host_pid, tree_use
from actors.kernels.watchdog import UseLimits, Watchdog, Watched

MIB = 1 << 20
HOLDING = """
import mmap, os, sys, time
private = bytearray(os.urandom(4096)) * (40 << 8)
shared = mmap.mmap(-1, 30 << 20)
for page in range(0, len(shared), 4096):
    shared[page] = 1
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
deadline = time.process_time() + 0.2
while time.process_time() < deadline:
    pass
print(child, flush=True)
sys.stdin.read()
os.kill(child, 9)
"""
"""A process with 40 MiB of its own, 30 MiB of shared memory and a child that shares both."""


@pytest.fixture
def holder():
    """The process and the pid of its child."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


def scan(*kernels, **limits):
    """One look at ``kernels``; the reasons and causes of those that are ended."""
    ended = []

    async def look():
        unlimited = {"memory_mib": math.inf, "cpu_s": math.inf, "files": math.inf}
        watchdog = Watchdog(UseLimits(**{**unlimited, **limits}))
        for name, pid, cage in kernels:
            watchdog.watch(
                Watched(
                    name=name,
                    pid=pid,
                    end=lambda reason, cause, name=name: ended.append((name, cause, reason)),
                    cage=cage,
                    private_files=False,
                )
            )
        await watchdog.scan()
        await watchdog.close()

    asyncio.run(look())
    return ended


def test_a_tree_is_added_up(holder):
    parent, child = holder

    use = tree_use(parent)

    assert use.pids == [parent, child]
    assert use.cpu_s >= 0.2
    assert use.resident_bytes > 2 * 40 * MIB


def test_shared_pages_count_once_in_the_exact_measure(holder):
    used = exact_memory_bytes(tree_use(holder[0]).pids)

    assert 70 * MIB < used < 100 * MIB


def test_processes_that_are_gone_count_nothing():
    with subprocess.Popen(["true"]) as process:
        process.wait()

    assert tree_use(process.pid).pids == []
    assert exact_memory_bytes([process.pid]) == 0
    assert files_use(process.pid).size_bytes == 0


def test_a_pidfd_tells_the_pid(holder):
    pidfd = os.pidfd_open(holder[0])

    assert host_pid(pidfd) == holder[0]

    os.close(pidfd)
    assert host_pid(pidfd) == -1


def test_only_the_kernel_beyond_the_limit_is_ended(holder):
    with subprocess.Popen(["sleep", "60"]) as small:
        ended = scan(("large", holder[0], None), ("small", small.pid, None), memory_mib=69)
        small.kill()

    assert [(name, cause) for name, cause, _ in ended] == [("large", DeathCause.MEMORY)]
    assert "limit 69 (kernel.sandbox_memory_mib)" in ended[0][2]


def test_a_sum_that_counts_shared_pages_twice_ends_nobody(holder):
    assert tree_use(holder[0]).resident_bytes > 120 * MIB
    assert scan(("fair", holder[0], None), memory_mib=110) == []


def test_cpu_time_ends_a_kernel(holder):
    ((name, cause, reason),) = scan(("busy", holder[0], None), cpu_s=0.1)

    assert (name, cause) == ("busy", DeathCause.CPU)
    assert "s of CPU, limit 0.1 (kernel.cpu_s)" in reason


def test_a_kernel_that_idles_is_looked_at_less_often_until_it_runs_a_cell():
    class CountingCage:
        looks = 0

        def cpu_s(self):
            self.looks += 1
            return 1.0

    async def scenario():
        cage, seen = CountingCage(), []
        watchdog = Watchdog(UseLimits(memory_mib=math.inf, cpu_s=math.inf, files=math.inf))
        watchdog.watch(Watched(name="idle", pid=-1, end=lambda *_: None, cage=cage))
        for number in range(11):
            if number == 7:
                watchdog.rouse("idle")
            await watchdog.scan()
            seen.append(cage.looks)
        await watchdog.close()
        return seen

    assert asyncio.run(scenario()) == [1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4]


def test_the_watchdog_rests_when_there_is_nobody_left():
    async def scenario():
        watchdog = Watchdog(UseLimits(memory_mib=1, cpu_s=1, files=1))
        watchdog.watch(Watched(name="gone", pid=-1, end=lambda *_: None))
        watchdog.forget("gone")
        await asyncio.wait_for(watchdog._task, 5)
        await watchdog.close()

    asyncio.run(scenario())


def fake_group(folder, *, controllers="cpu memory pids", enabled="", procs=""):
    """A folder with the files of a control group."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(enabled)
    (folder / "cgroup.procs").write_text(procs)
    return folder


@pytest.fixture
def cages(tmp_path):
    """Folders with the files that cgroupfs would make; what is written into them can be read."""
    parent = fake_group(tmp_path / "delegated")
    own = fake_group(parent / f"lzero-{os.getpid()}")
    (fake_group(own / "7-1") / "memory.swap.max").write_text("max")
    return parent, Cages(parent, CageLimits(memory_mib=300, processes=24))


def test_a_group_per_kernel_bounds_its_memory_and_processes(cages):
    parent, made = cages

    cage = made.make("7-1")
    cage.add([os.getpid()])

    own = parent / f"lzero-{os.getpid()}"
    folder = own / "7-1"
    assert (parent / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (folder / "memory.max").read_text() == str(300 * MIB)
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "pids.max").read_text() == "25"
    assert (folder / "cgroup.procs").read_text() == str(os.getpid())


def test_a_group_tells_cpu_time_and_death_for_memory(cages):
    parent, made = cages
    cage = made.make("7-1")
    folder = parent / f"lzero-{os.getpid()}" / "7-1"
    assert (cage.cpu_s(), cage.out_of_memory()) == (0, False)

    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\n")
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 3\noom_group_kill 1\n")

    assert (cage.cpu_s(), cage.out_of_memory()) == (2.5, True)
    ((_, cause, _),) = scan(("caged", -1, cage), cpu_s=2.0)
    assert cause is DeathCause.CPU


def test_a_folder_that_is_no_group_is_refused(tmp_path):
    with pytest.raises(NoCgroup, match="not a cgroup v2"):
        Cages(tmp_path, CageLimits(memory_mib=1, processes=1))


def test_a_missing_controller_is_named(tmp_path):
    folder = fake_group(tmp_path / "group", controllers="cpu pids")

    with pytest.raises(NoCgroup, match="offers no controller memory"):
        Cages(folder, CageLimits(memory_mib=1, processes=1))


@pytest.fixture
def real_group():
    """A control group of this machine, though without controllers."""
    mounts = [
        Path(line.split()[1])
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
    ]
    folder = next((m for m in mounts if os.access(m, os.W_OK)), None)
    if folder is None:
        pytest.skip("no writable cgroup v2")
    folder = folder / f"lzero-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield folder
    if folder.exists():
        folder.rmdir()


def test_a_real_group_holds_a_process_and_goes_with_it(real_group):
    cage = Cage(real_group)
    spin = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\ninput()"
    command = [sys.executable, "-c", f"input()\n{spin}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        cage.add([process.pid])
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()

        assert (real_group / "cgroup.procs").read_text() == f"{process.pid}\n"
        assert cage.cpu_s() >= 0.05
        process.kill()
    cage.remove()

    assert not real_group.exists()
