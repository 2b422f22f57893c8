"""What ordinary code still finds in a sandbox, and what no two sandboxes may share."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.kernels.launchers import make_launcher
from common.config import Kernel
from tests.process_tree import wait_until_dead

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
EXECUTED = {"timeout_s": 20.0}


@pytest.fixture(scope="module", params=["forked", "cold", "jupyter"])
def kernels(request, loop_runner):
    """Two kernels of one launcher."""
    launcher = make_launcher(Kernel(launcher=request.param, preload_numpy=False))
    loop_runner.run(launcher.start())
    made = [loop_runner.run(launcher.launch()) for _ in range(2)]
    yield made
    for kernel in made:
        loop_runner.run(kernel.close())
    loop_runner.run(launcher.close())


@pytest.fixture
def run(kernels, loop_runner):
    def run(code, number=0):
        cell = textwrap.dedent(code)
        return loop_runner.run(kernels[number].execute(cell, **EXECUTED)).output.strip()

    return run


def test_shared_memory_of_the_standard_library_works(run):
    code = """
        import multiprocessing, tempfile
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.shared_memory import SharedMemory
        fork = multiprocessing.get_context("fork")
        array, value, queue = fork.Array("i", 9), fork.Value("d", 0.5), fork.Queue()
        def work():
            array[3], value.value = 7, 1.5
            queue.put("done")
        worker = fork.Process(target=work)
        worker.start()
        said = queue.get(timeout=10)
        worker.join()
        memory = SharedMemory(create=True, size=1 << 20)
        other = SharedMemory(memory.name)
        other.buf[5] = 6
        six = memory.buf[5]
        memory.unlink()
        with ProcessPoolExecutor(2, mp_context=fork) as pool:
            print(array[3], value.value, said, six, list(pool.map(abs, [-1, -2])))
    """
    assert run(code) == "7 1.5 done 6 [1, 2]"


def test_mapped_files_databases_and_copies_work(run):
    code = """
        import fcntl, os, shutil, socket, sqlite3, threading
        import numpy
        mapped = numpy.memmap("/workspace/numbers", dtype="f4", mode="w+", shape=(1000,))
        mapped[3] = 2
        mapped.flush()
        with open("/workspace/numbers", "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
        base = sqlite3.connect("/workspace/base")
        mode = base.execute("pragma journal_mode = wal").fetchone()[0]
        base.execute("create table t (x)")
        base.execute("insert into t values (1)")
        base.commit()
        shutil.copyfile("/workspace/numbers", "/workspace/copy")
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with open("/workspace/copy", "rb") as file:
            sent = ours.sendfile(file)
        print(float(numpy.fromfile("/workspace/copy", "f4")[3]), mode, sent, len(theirs.recv(9999)))
    """
    assert run(code) == "2.0 wal 4000 4000"


def test_what_proc_tells_of_ones_own_processes_is_there(run):
    code = """
        import os, subprocess
        print(os.cpu_count() == len(os.sched_getaffinity(0)))
        print(open("/proc/self/comm").read().startswith("python"))
        print(sorted(name for name in os.listdir("/proc") if not name.isdigit()))
        print(subprocess.run(["nproc"], capture_output=True).returncode)
        print("VmRSS" in open("/proc/self/status").read(), len(os.listdir("/proc/self/fd")) > 2)
    """
    lines = run(code).splitlines()

    assert lines == ["True", "True", "['self', 'thread-self']", "0", "True True"]


def test_two_kernels_share_nothing_that_they_can_write(run):
    """Whatever either can name: mount points, and folders and files of processes."""
    code = """
        import glob, json, os
        places = [line.split()[4] for line in open("/proc/self/mountinfo")]
        places += glob.glob("/proc/[0-9]*/cwd") + glob.glob("/proc/[0-9]*/fd/*")
        found = {}
        for place in places:
            try:
                status, readable = os.stat(place), os.statvfs(place).f_flag & os.ST_RDONLY
            except OSError:
                continue
            if not readable and "/fd/" not in place:
                found.setdefault(str(status.st_dev), place)
        print(json.dumps(found))
    """
    mine, theirs = (json.loads(run(code, number)) for number in (0, 1))

    assert {mine[device] for device in mine.keys() & theirs.keys()} == set()
    assert {"/tmp", "/workspace", "/dev/shm", "/dev/pts"} <= {*mine.values()}


OUT_OF_MEMORY = """
import asyncio, os, subprocess, sys
from pathlib import Path
group = Path(sys.argv[1])
(group / "cgroup.procs").write_text(str(os.getpid()))
from actors.kernels.interface import KernelDiedError
from actors.kernels.launchers import make_launcher
from common.config import Kernel

HOG = "import time; hog = bytearray(b'1') * (400 << 20); print(flush=True); time.sleep(600)"

async def main():
    larger = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE)
    larger.stdout.readline()
    launcher = make_launcher(Kernel(launcher=sys.argv[2], preload_numpy=False))
    await launcher.start()
    kernel = await launcher.launch()
    try:
        await kernel.execute("h = [bytearray(b'1') * (1 << 20) for _ in range(900)]", timeout_s=60)
    except KernelDiedError as death:
        print("the kernel died", larger.poll(), Path("/proc/self/oom_score_adj").read_text())
    larger.kill()
    await kernel.close()
    await launcher.close()

asyncio.run(main())
"""


@contextmanager
def memory_group(limit_mib):
    group = MEMORY_GROUPS / f"lzero-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_mib << 20))
    except OSError as error:
        pytest.skip(f"no memory group of version 1 can be made: {error}")
    try:
        yield group
    finally:
        wait_until_dead([int(pid) for pid in (group / "cgroup.procs").read_text().split()], 10)
        group.rmdir()


@pytest.mark.nightly
@pytest.mark.parametrize("launcher", ["forked", "cold", "jupyter"])
def test_when_memory_runs_out_the_sandbox_goes_and_not_a_larger_process_of_the_host(launcher):
    with memory_group(limit_mib=900) as group:
        done = subprocess.run(
            [sys.executable, "-c", OUT_OF_MEMORY, str(group), launcher],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    own = Path("/proc/self/oom_score_adj").read_text()
    assert done.stdout.strip() == f"the kernel died None {own.strip()}", done.stderr
