"""Hostile cells against every limit of a kernel: it dies of a named cause, its siblings live on."""

import asyncio
import os
import re
import signal
import textwrap
import time
from pathlib import Path

import pytest

from actors.kernels.interface import CellStatus, DeathCause, KernelDiedError
from actors.kernels.launchers import make_launcher
from common.config import Kernel

pytestmark = pytest.mark.sandbox
TIGHT = {
    "memory_mib": 400,
    "sandbox_memory_mib": 300,
    "workspace_mib": 350,
    "cpu_s": 30.0,
    "inodes": 500,
    "processes": 24,
    "grace_s": 0.3,
    "preload_numpy": False,
}


@pytest.fixture(scope="module", params=["forked", "cold"])
def launcher(request, loop_runner):
    made = make_launcher(Kernel(launcher=request.param, **TIGHT))
    loop_runner.run(made.start())
    yield made
    loop_runner.run(made.close())


@pytest.fixture(scope="module")
def bystander(launcher, loop_runner):
    """A kernel that must survive everything that happens to its siblings."""
    kernel = loop_runner.run(launcher.launch())
    loop_runner.run(kernel.execute("kept = 42", timeout_s=20))
    yield kernel
    result = loop_runner.run(kernel.execute("kept", timeout_s=20))
    loop_runner.run(kernel.close())
    assert result.output == "42\n"


@pytest.fixture
def kernel(launcher, loop_runner, bystander):
    made = loop_runner.run(launcher.launch())
    yield made
    loop_runner.run(made.close())


@pytest.fixture
def run(loop_runner, kernel):
    def run(code, timeout_s=20.0):
        return loop_runner.run(kernel.execute(textwrap.dedent(code), timeout_s=timeout_s))

    return run


everywhere = pytest.mark.parametrize(
    "launcher", ["forked", "cold", "jupyter"], indirect=True, scope="module"
)


def death(run, code, timeout_s=20.0):
    with pytest.raises(KernelDiedError) as caught:
        run(code, timeout_s)
    return caught.value.cause, str(caught.value)


def megabytes(message):
    return int(re.search(r"used ([\d,]+) MiB", message)[1].replace(",", ""))


@everywhere
def test_many_processes_cannot_take_more_memory_than_the_sandbox_has(run):
    cause, message = death(
        run,
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                hog = bytearray(os.urandom(1 << 20)) * 60
                time.sleep(60)
        time.sleep(60)
        """,
    )

    assert cause is DeathCause.MEMORY
    assert "limit 300 (kernel.sandbox_memory_mib)" in message
    assert re.match(r"kernel \d+-\d+ ended: it used", message)
    assert 300 < megabytes(message) < 700


@everywhere
def test_shared_memory_lies_in_files_or_is_refused(run):
    """What only a mapping holds would stay, uncounted, when all but one page is unmapped."""
    result = run(
        """
        import mmap
        for way in ("anonymous", "/dev/zero"):
            try:
                file = -1 if way == "anonymous" else open(way, "r+b").fileno()
                mmap.mmap(file, 4096)
                print(way, "can be mapped")
            except OSError as error:
                print(way, type(error).__name__)
        print(open("/dev/zero", "rb").read(2))
        """
    )

    assert result.output.splitlines() == [
        "anonymous PermissionError",
        "/dev/zero OSError",
        r"b'\x00\x00'",
    ]


def test_files_count_as_memory(run):
    cause, message = death(
        run,
        """
        import time
        with open("/workspace/a", "wb") as first, open("/tmp/b", "wb") as second:
            for _ in range(200):
                first.write(bytes([1]) * (1 << 20))
                second.write(bytes([1]) * (1 << 20))
        time.sleep(60)
        """,
    )

    assert (cause, megabytes(message) > 300) == (DeathCause.MEMORY, True)


def test_processes_that_share_their_memory_are_not_charged_for_it_twice(
    run, launcher, loop_runner, kernel
):
    run(
        """
        import os, time
        data = bytearray(os.urandom(1 << 20)) * 80
        children = []
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
        """
    )
    watchdog = launcher._chosen._wardens.watchdog

    async def scans():
        for _ in range(3):
            watchdog._records[kernel.kernel_id].exact_from = 0.0
            watchdog.rouse(kernel.kernel_id)
            await watchdog.scan()
            await watchdog.measured()

    loop_runner.run(scans())
    assert run("len(data) >> 20").output == "80\n"


@everywhere
def test_a_kernel_that_idled_is_watched_closely_as_soon_as_a_cell_runs(run, launcher, kernel):
    run("1")
    record = launcher._chosen._wardens.watchdog._records[kernel.kernel_id]
    record.rests = 1000

    run("2")

    assert record.rests < 10


@everywhere
def test_memory_counts_when_the_main_threads_of_its_processes_have_ended(run):
    cause, message = death(
        run,
        """
        import ctypes, os, threading, time
        def hold():
            hog = bytearray(os.urandom(1 << 20)) * 80
            time.sleep(60)
        for _ in range(6):
            if os.fork() == 0:
                threading.Thread(target=hold).start()
                ctypes.CDLL(None).pthread_exit(None)
        time.sleep(60)
        """,
    )

    assert cause is DeathCause.MEMORY
    assert megabytes(message) > 300


DEAR = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
ours, theirs = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        start = libc.mmap(None, ctypes.c_size_t(60_000 * 4096), 0, 0x22, -1, 0)
        for page in range(0, 60_000, 2):
            libc.mprotect(ctypes.c_void_p(start + page * 4096), ctypes.c_size_t(4096), 1)
        os.write(theirs, b"x")
        time.sleep(60)
made = sum(len(os.read(ours, 1)) for _ in range(4))
made
"""


def test_the_limits_of_a_kernel_hold_beside_one_that_is_dear_to_measure(
    launcher, loop_runner, kernel
):
    """The dear one stays below every limit, and is measured again and again meanwhile."""
    hoard = "import os, time\nfor _ in range(7):\n    if os.fork() == 0: break\n"
    hoard += "hog = bytearray(os.urandom(1 << 20)) * 60\ntime.sleep(60)"

    async def scenario():
        dear = await launcher.launch()
        try:
            assert (await dear.execute(DEAR, timeout_s=20)).output == "4\n"
            started = time.monotonic()
            with pytest.raises(KernelDiedError) as it:
                await kernel.execute(hoard, timeout_s=20)
            return it.value.cause, time.monotonic() - started, dear.alive
        finally:
            await dear.close()

    cause, seconds, dear_lives = loop_runner.run(scenario())

    assert (cause, dear_lives) == (DeathCause.MEMORY, True)
    assert seconds < 15


def test_memory_of_one_process_ends_in_a_memory_error(run):
    assert run("bytearray(450 << 20)").error_name == "MemoryError"
    assert run("1 + 1").output == "2\n"


@everywhere
def test_cpu_time_counts_over_all_processes(launcher, loop_runner):
    async def scenario():
        made = make_launcher(Kernel(launcher=launcher.name, **{**TIGHT, "cpu_s": 0.8}))
        await made.start()
        try:
            kernel = await made.launch()
            spin = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
            with pytest.raises(
                KernelDiedError, match=r"used [\d.]+ s of CPU, limit 0.8 .kernel.cpu_s"
            ) as it:
                await kernel.execute(spin, timeout_s=20)
            await kernel.close()
            return it.value.cause
        finally:
            await made.close()

    assert loop_runner.run(scenario()) is DeathCause.CPU


def test_cpu_time_of_one_process_is_bounded_without_the_watchdog(launcher, loop_runner):
    async def scenario():
        made = make_launcher(Kernel(launcher=launcher.name, **{**TIGHT, "cpu_s": 1.0}))
        await made.start()
        try:
            kernel = await made.launch()
            kernel._watched = True
            with pytest.raises(KernelDiedError, match="one process used 1 s of CPU") as it:
                await kernel.execute("while True: pass", timeout_s=20)
            await kernel.close()
            return it.value.cause
        finally:
            await made.close()

    assert loop_runner.run(scenario()) is DeathCause.CPU


def test_processes_and_threads_are_bounded(run):
    code = """
        import os, threading, time
        started = 0
        try:
            for _ in range(100):
                threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        print(started < 24)
    """
    assert run(code).output == "True\n"


@everywhere
def test_inodes_are_bounded(run):
    code = """
        import errno
        for number in range(100_000):
            try:
                open(f"/tmp/{number}", "w").close()
            except OSError as error:
                print(errno.errorcode[error.errno], number < 500)
                break
    """
    assert run(code).output == "ENOSPC True\n"


@everywhere
def test_terminals_work_and_are_bounded(run):
    code = """
        import os
        pairs = []
        try:
            while len(pairs) < 100:
                pairs.append(os.openpty())
        except OSError:
            pass
        os.write(pairs[0][1], b"through")
        print(len(pairs), os.read(pairs[0][0], 7))
    """
    assert run(code).output == "16 b'through'\n"


def test_a_cell_that_ignores_its_deadline_dies_of_that(run):
    cause, message = death(run, "sum(range(10**13))", timeout_s=0.1)

    assert cause is DeathCause.IGNORED_INTERRUPT
    assert "ran 0.1 s and ignored the interrupt for 0.3 s" in message


def test_a_cell_that_swallows_interrupts_dies_of_that(run):
    code = """
        import time
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
    """
    assert death(run, code, timeout_s=0.1)[0] is DeathCause.IGNORED_INTERRUPT


def test_output_is_bounded(run):
    result = run("import os\nfor _ in range(500): os.write(1, b'x' * 65536)\nprint('y' * 10**7)")

    assert result.status is CellStatus.OK
    assert len(result.output) < 66_000
    assert result.dropped_bytes > 10**7


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("import os; os._exit(3)", "its process exited with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("import os; os.kill(2, 9)", "was killed by SIGKILL"),
    ],
)
def test_a_kernel_that_ends_by_itself_is_named_with_how(run, code, ending):
    cause, message = death(run, code)

    assert (cause, ending in message) == (DeathCause.EXITED, True), message


@everywhere
def test_signals_to_the_first_process_are_without_effect(run):
    code = """
        import os, signal
        for number in signal.Signals:
            os.kill(1, number)
        print("alive")
    """
    assert run(code).output == "alive\n"


def test_a_kernel_that_forges_its_last_word_only_ends_itself(run):
    code = """
        import msgpack, os, time
        body = msgpack.packb(["exited", -24])
        os.write(3, len(body).to_bytes(4, "big") + body)
        time.sleep(60)
    """
    assert death(run, code)[0] is DeathCause.CPU


def test_a_closed_kernel_says_that_it_was_closed(run, kernel, loop_runner):
    loop_runner.run(kernel.close())

    assert death(run, "1")[0] is DeathCause.CLOSED


def test_the_deaths_of_one_zygote_are_named_after_it(loop_runner):
    async def scenario():
        made = make_launcher(Kernel(launcher="forked", **TIGHT))
        await made.start()
        try:
            kernels = [await made.launch() for _ in range(2)]
            cells = [
                asyncio.create_task(k.execute("import time; time.sleep(60)", timeout_s=70))
                for k in kernels
            ]
            await asyncio.sleep(0)
            made._chosen._zygote._process.kill()
            ends = await asyncio.gather(*cells, return_exceptions=True)
            await asyncio.gather(*(kernel.close() for kernel in kernels))
            return [end.cause for end in ends]
        finally:
            await made.close()

    assert loop_runner.run(scenario()) == [DeathCause.LAUNCHER_DIED] * 2


def test_nothing_of_a_dead_kernel_is_left(loop_runner, launcher):
    async def scenario():
        before = set(os.listdir("/proc/self/fd"))
        kernel = await launcher.launch()
        with pytest.raises(KernelDiedError):
            await kernel.execute("import os; os.fork(); os._exit(1)", timeout_s=20)
        await kernel.close()
        return len(set(os.listdir("/proc/self/fd")) - before)

    assert loop_runner.run(scenario()) <= 1


@pytest.fixture
def grouped(loop_runner, tmp_path):
    """A launcher whose control groups are plain folders, so that we play the system's part."""
    for folder in (tmp_path, tmp_path / f"lzero-{os.getpid()}"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text("memory pids")
        (folder / "cgroup.subtree_control").write_text("memory pids")
    made = make_launcher(Kernel(launcher="forked", **TIGHT, cgroup=str(tmp_path)))
    loop_runner.run(made.start())
    yield made, tmp_path / f"lzero-{os.getpid()}"
    loop_runner.run(made.close())


def test_a_kernel_lives_in_its_control_group_from_the_start(grouped, loop_runner):
    launcher, groups = grouped

    kernel = loop_runner.run(launcher.launch())
    group = groups / kernel.kernel_id
    pid = int((group / "cgroup.procs").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    loop_runner.run(kernel.close())

    assert re.search(r"NSpid:.*\t2\n", status)
    assert (group / "memory.max").read_text() == str(300 << 20)
    assert (group / "pids.max").read_text() == "25"


def test_a_kernel_that_the_system_kills_for_its_memory_is_named_so(grouped, loop_runner):
    launcher, groups = grouped

    async def scenario():
        kernel = await launcher.launch()
        group = groups / kernel.kernel_id
        cell = asyncio.create_task(kernel.execute("import time; time.sleep(60)", timeout_s=70))
        await asyncio.sleep(0)
        (group / "memory.events").write_text("oom 1\noom_kill 2\n")
        os.kill(int((group / "cgroup.procs").read_text()), signal.SIGKILL)
        end = (await asyncio.gather(cell, return_exceptions=True))[0]
        await kernel.close()
        return end

    end = loop_runner.run(scenario())
    assert end.cause is DeathCause.MEMORY
    assert "limit 300 (kernel.sandbox_memory_mib)" in str(end)


def test_cpu_time_is_read_from_the_control_group(grouped, loop_runner):
    launcher, groups = grouped

    async def scenario():
        kernel = await launcher.launch()
        (groups / kernel.kernel_id / "cpu.stat").write_text("usage_usec 31000000\n")
        with pytest.raises(KernelDiedError, match=r"used 31.0 s of CPU, limit 30") as it:
            await kernel.execute("import time; time.sleep(60)", timeout_s=70)
        await kernel.close()
        return it.value.cause

    assert loop_runner.run(scenario()) is DeathCause.CPU


def test_a_folder_that_is_no_control_group_leaves_the_watchdog(loop_runner, tmp_path, caplog):
    async def scenario():
        made = make_launcher(Kernel(launcher="forked", **TIGHT, cgroup=str(tmp_path)))
        await made.start()
        try:
            return (await (await made.launch()).execute("6 * 7", timeout_s=20)).output
        finally:
            await made.close()

    assert loop_runner.run(scenario()) == "42\n"
    assert "the watchdog alone" in caplog.text
