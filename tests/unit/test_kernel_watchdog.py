"""What the watchdog reads of processes, whom it ends, and what it writes into control groups."""

import asyncio
import itertools
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.kernels.interface import DeathCause
from actors.kernels.limits.cgroup import Cage, CageLimits, Cages, NoCgroupError
from actors.kernels.limits.memory_use import MOST_MAPPINGS, TooDearError, measure_memory
from actors.kernels.limits.procfs import files_use, host_pid, sockets_bytes, tree_use
from actors.kernels.limits.watchdog import UseLimits, Watchdog, Watched

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


def scan(*kernels, times=1, slowest_s=60.0, **limits):
    """Look at ``kernels``; the reasons and causes of those that are ended."""
    ended = []

    async def look():
        unlimited = {"sandbox_memory_mib": math.inf, "cpu_s": math.inf, "files": math.inf}
        watchdog = Watchdog(UseLimits(**{**unlimited, **limits}), slowest_s=slowest_s)
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
        for _ in range(times):
            await watchdog.scan()
            await watchdog.measured()
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
    used = measure_memory(tree_use(holder[0]).pids, 0, 1.0)

    assert 70 * MIB < used < 100 * MIB


HEADLESS = """
import ctypes, threading, sys
def hold():
    hog = bytearray(100 << 20)
    print(flush=True)
    sys.stdin.read()
    import os; os._exit(0)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def run_until_line(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_process_whose_main_thread_has_ended_counts_in_full():
    with run_until_line(HEADLESS) as process:
        process.stdout.readline()
        wait_for_state(process.pid, "Z")
        use = tree_use(process.pid)
        used = measure_memory(use.pids, 0, 1.0)
        process.stdin.close()

    assert use.resident_bytes > 100 * MIB
    assert 100 * MIB < used < 130 * MIB


def wait_for_state(pid, state):
    deadline = time.monotonic() + 10
    while f") {state} " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline


SHARED = """
import ctypes, mmap, sys
hog = mmap.mmap(-1, 64 << 20)
hog.write(bytes(64 << 20))
libc = ctypes.CDLL(None, use_errno=True)
start = ctypes.addressof(ctypes.c_char.from_buffer(hog))
assert not libc.munmap(ctypes.c_void_p(start + 4096), ctypes.c_size_t((64 << 20) - 4096))
print(flush=True)
sys.stdin.read()
import os; os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what an object without a file holds")
def test_shared_memory_counts_when_one_page_of_it_is_still_mapped():
    with run_until_line(SHARED) as process:
        process.stdout.readline()
        used = measure_memory([process.pid], 0, 1.0)
        process.stdin.close()

    assert used > 64 * MIB


def test_pages_of_files_in_memory_count_once(tmp_path):
    code = """
import mmap, os, sys
file = open(f"/dev/shm/lzero-test-{os.getpid()}", "w+b")
os.unlink(file.name)
file.truncate(50 << 20)
mapped = mmap.mmap(file.fileno(), 50 << 20)
mapped.write(bytes(50 << 20))
print(flush=True)
sys.stdin.read()
"""
    with run_until_line(code) as process:
        process.stdout.readline()
        counted = [measure_memory([process.pid], files, 1.0) for files in (0, 50 * MIB, 60 * MIB)]
        process.stdin.close()

    assert all(50 * MIB < used < 85 * MIB for used in counted)
    assert counted[1] - counted[0] < MIB
    assert 9 * MIB < counted[2] - counted[1] <= 11 * MIB


MAPPING = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
start = libc.mmap(None, ctypes.c_size_t(62000 * 4096), 0, 0x22, -1, 0)
for page in range(0, 62000, 2):
    libc.mprotect(ctypes.c_void_p(start + page * 4096), ctypes.c_size_t(4096), 1)
os.write(1, b"x")
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def mapper():
    """Processes with 62,000 mappings each, more than a sandbox may have."""
    count = MOST_MAPPINGS // 62_000 + 2
    with run_until_line(MAPPING, str(count)) as process:
        for _ in range(count):
            process.stdout.read(1)
        yield process.pid
        process.stdin.close()


def test_neither_cpu_time_nor_memory_of_a_kernel_waits_for_another_one(mapper, holder):
    """The dear one is measured, or rests after that, when the others are looked at."""
    ended = {}

    def watched(name, pid):
        def end(reason, cause):
            ended.setdefault((name, cause), reason)

        return Watched(name=name, pid=pid, end=end, private_files=False)

    async def scenario():
        limits = UseLimits(sandbox_memory_mib=69, cpu_s=0.1, files=math.inf)
        watchdog = Watchdog(limits)
        watchdog.watch(watched("dear", mapper))
        watchdog.watch(watched("busy", holder[0]))
        await watchdog.scan()
        at_once = set(ended)
        await watchdog.measured()
        watchdog.watch(watched("large", holder[0]))
        await watchdog.scan()
        await watchdog.measured()
        await watchdog.close()
        return at_once

    at_once = asyncio.run(scenario())

    assert ("busy", DeathCause.CPU) in at_once
    assert ("dear", DeathCause.MEMORY) not in at_once
    assert "limit 69" in ended["large", DeathCause.MEMORY]
    assert "more than 262,144 memory mappings" in ended["dear", DeathCause.MEMORY]


def test_a_measurement_that_takes_too_long_is_given_up(mapper):
    with pytest.raises(TooDearError, match=r"more than 0\.001 s of CPU"):
        measure_memory(tree_use(mapper).pids[:2], 0, 0.001)


def test_a_kernel_that_lets_who_measures_it_wait_is_ended(mapper):
    ((_, cause, reason),) = scan(("slow", mapper, None), sandbox_memory_mib=4000, slowest_s=0.001)

    assert cause is DeathCause.MEMORY
    assert "it was measured for 0.001 s: its memory" in reason


def test_what_it_costs_to_measure_a_kernel_is_its_own_cpu_time(mapper):
    used_s = tree_use(mapper).cpu_s

    ended = scan(("dear", mapper, None), cpu_s=used_s + 0.005, sandbox_memory_mib=4000, times=6)

    causes = [cause for _, cause, _ in ended]
    assert (causes[0], DeathCause.CPU in causes) == (DeathCause.MEMORY, True)


def test_sockets_count_as_if_they_were_full():
    before = sockets_bytes(os.getpid())
    pairs = [socket.socketpair() for _ in range(64)]

    assert sockets_bytes(os.getpid()) - before >= 32 * MIB  # others may close some meanwhile
    assert sockets_bytes(-1) == 0

    for one in itertools.chain.from_iterable(pairs):
        one.close()


def test_processes_that_are_gone_count_nothing():
    with subprocess.Popen(["true"]) as process:
        process.wait()

    assert tree_use(process.pid).pids == []
    assert measure_memory([process.pid], 0, 1.0) == 0
    assert files_use(process.pid).size_bytes == 0


def test_a_pidfd_tells_the_pid(holder):
    pidfd = os.pidfd_open(holder[0])

    assert host_pid(pidfd) == holder[0]

    os.close(pidfd)
    assert host_pid(pidfd) == -1


def test_only_the_kernel_beyond_the_limit_is_ended(holder):
    with subprocess.Popen(["sleep", "60"]) as small:
        ended = scan(("large", holder[0], None), ("small", small.pid, None), sandbox_memory_mib=69)
        small.kill()

    assert [(name, cause) for name, cause, _ in ended] == [("large", DeathCause.MEMORY)]
    assert "limit 69 (kernel.sandbox_memory_mib)" in ended[0][2]


def test_a_sum_that_counts_shared_pages_twice_ends_nobody(holder):
    assert tree_use(holder[0]).resident_bytes > 120 * MIB
    assert scan(("fair", holder[0], None), sandbox_memory_mib=110) == []


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
        watchdog = Watchdog(UseLimits(sandbox_memory_mib=math.inf, cpu_s=math.inf, files=math.inf))
        watchdog.watch(Watched(name="idle", pid=-1, end=lambda *_: None, cage=cage))
        for number in range(11):
            if number == 7:
                watchdog.rouse("idle")
            await watchdog.scan()
            seen.append(cage.looks)
        await watchdog.close()
        return seen

    assert asyncio.run(scenario()) == [1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4]


def test_a_kernel_that_cannot_be_looked_at_hides_no_other_one(holder, caplog):
    class BrokenCage:
        def cpu_s(self):
            raise ValueError("no number")

    ended = scan(("odd", -1, BrokenCage()), ("busy", holder[0], None), cpu_s=0.1)

    assert [(name, cause) for name, cause, _ in ended] == [("busy", DeathCause.CPU)]
    assert "kernel=odd could not be watched" in caplog.text


def test_the_watchdog_rests_when_there_is_nobody_left():
    async def scenario():
        watchdog = Watchdog(UseLimits(sandbox_memory_mib=1, cpu_s=1, files=1))
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
    return parent, Cages(parent, CageLimits(sandbox_memory_mib=300, processes=24))


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
    with pytest.raises(NoCgroupError, match="not a cgroup v2"):
        Cages(tmp_path, CageLimits(sandbox_memory_mib=1, processes=1))


def test_a_missing_controller_is_named(tmp_path):
    folder = fake_group(tmp_path / "group", controllers="cpu pids")

    with pytest.raises(NoCgroupError, match="offers no controller memory"):
        Cages(folder, CageLimits(sandbox_memory_mib=1, processes=1))


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
