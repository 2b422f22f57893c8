"""Real sandboxed kernels: what a cell can do, what it cannot, and that nothing survives."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import uvloop

from actors.kernels import runtime
from actors.kernels.interface import CellStatus, DeathCause, KernelDied, ToolParameter, ToolSpec
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from common.config import Kernel
from common.errors import EnvironmentFault
from tests.process_tree import descendants, wait_until_dead

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "sk-never-to-be-seen-inside"
CONFIG = Kernel(grace_s=0.4, memory_mib=512)


@pytest.fixture(scope="module")
def loop_runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


def launcher_fixture(name):
    @pytest.fixture(scope="module", name=name)
    def fixture(loop_runner):
        before = os.environ.get("OPENAI_API_KEY")
        os.environ["OPENAI_API_KEY"] = SECRET
        made = make_launcher(Kernel(launcher=name, grace_s=1.0 if name == "jupyter" else 0.4))
        loop_runner.run(made.start())
        yield made
        loop_runner.run(made.close())
        os.environ.pop("OPENAI_API_KEY")
        if before is not None:
            os.environ["OPENAI_API_KEY"] = before

    return fixture


forked = launcher_fixture("forked")
cold = launcher_fixture("cold")
jupyter = launcher_fixture("jupyter")


def anything(name):
    """A tool that takes two values and two keywords."""
    return ToolSpec(
        name=name,
        doc="Says what it was given.",
        parameters=(
            ToolParameter(name="first", required=False),
            ToolParameter(name="second", required=False),
            ToolParameter(name="k", required=False, keyword_only=True),
        ),
    )


SEARCH = ToolSpec(
    name="search",
    doc="Look something up.",
    parameters=(
        ToolParameter(name="query", annotation="str"),
        ToolParameter(name="k", annotation="int", required=False, default=3),
        ToolParameter(name="site", annotation="str", required=False, default="", keyword_only=True),
    ),
    returns="list[str]",
)
TOKENS = ToolSpec(name="notepad.tokens", doc="How many.", returns="int", is_property=True)
ADD = ToolSpec(
    name="notepad.add", doc="Add.", parameters=(ToolParameter(name="item", annotation="str"),)
)


class Notebook:
    """A kernel with blocking methods."""

    def __init__(self, runner, kernel):
        self.runner, self.kernel = runner, kernel

    def run(self, code, timeout_s=10.0):
        return self.runner.run(self.kernel.execute(textwrap.dedent(code), timeout_s=timeout_s))

    def execute(self, code, output_bytes=None):
        work = self.kernel.execute(textwrap.dedent(code), timeout_s=10, output_bytes=output_bytes)
        return self.runner.run(work)

    def put_file(self, name, data):
        self.runner.run(self.kernel.put_file(name, data))

    def value(self, code):
        result = self.run(code)
        assert result.status is CellStatus.OK, result.output
        return result.output.strip()

    def bind(self, names, handler):
        async def bind():
            specs = [anything(name) if isinstance(name, str) else name for name in names]
            self.kernel.bind_tools(specs, handler)

        self.runner.run(bind())

    def close(self):
        self.runner.run(self.kernel.close())


@pytest.fixture
def launch(loop_runner, forked):
    notebooks = []

    def start():
        notebooks.append(Notebook(loop_runner, loop_runner.run(forked.launch())))
        return notebooks[-1]

    yield start
    for notebook in notebooks:
        notebook.close()


@pytest.fixture
def notebook(launch):
    return launch()


@pytest.fixture(scope="module", params=["forked", "cold", "jupyter"])
def shared(request, loop_runner):
    """One kernel per launcher for the cells that harm nobody."""
    made = request.getfixturevalue(request.param)
    notebook = Notebook(loop_runner, loop_runner.run(made.launch()))
    yield notebook
    notebook.close()


async def echo(name, arguments, keywords):
    if name == "fail":
        raise {"key": KeyError, "value": ValueError, "time": TimeoutError, "os": OSError}[
            arguments[0]
        ]("told you")
    if name == "slow":
        await asyncio.sleep(0.05)
    return [name, list(arguments), keywords]


def test_variables_persist_and_the_last_expression_is_shown(shared):
    shared.run("x = 20")

    result = shared.run("import sys\nprint('one')\nprint('two', file=sys.stderr)\nx + 1")

    assert result.status is CellStatus.OK
    assert sorted(result.output.split()) == ["21", "one", "two"]


def test_an_exception_is_reported_with_its_traceback(shared):
    result = shared.run("def f():\n    return 1 / 0\nf()")

    assert (result.status, result.error_name) == (CellStatus.ERROR, "ZeroDivisionError")
    assert "ZeroDivisionError: division by zero" in result.output
    assert "Cell In[" in result.output


def test_a_syntax_error_is_reported(shared):
    assert shared.run("def (").error_name == "SyntaxError"


def test_a_cell_can_await(shared):
    assert shared.value("import asyncio\nawait asyncio.sleep(0.001)\n5") == "5"


def test_output_of_subprocesses_is_shown_in_order(shared):
    result = shared.value("import subprocess\n_ = subprocess.run(['echo', 'from a process'])")

    assert result == "from a process"


def test_tools_round_trip_data_and_exceptions(shared):
    shared.bind(["search", "fail"], echo)

    assert shared.value("search('ä', {'b': [1, None]}, k=2.5)") == str(
        ["search", ["ä", {"b": [1, None]}], {"k": 2.5}]
    )
    assert shared.run("fail('key')").error_name == "KeyError"
    assert shared.run("fail('value')").error_name == "ValueError"
    assert shared.run("fail('time')").error_name == "TimeoutError"
    assert shared.run("fail('os')").error_name == "ToolError"
    assert shared.run("search(object())").error_name == "TypeError"


def test_a_timeout_interrupts_the_cell_and_keeps_the_state(shared):
    shared.run("kept = 'still here'")

    result = shared.run("import time\ntime.sleep(60)", timeout_s=0.2)

    assert result.status is CellStatus.TIMED_OUT
    assert shared.value("kept") == "'still here'"


def test_output_beyond_the_cap_is_counted(shared):
    result = shared.run("print('y' * 100_000)")

    assert result.dropped_bytes == 100_001 - 65536
    assert result.output.endswith(f"[{result.dropped_bytes} bytes of output dropped]\n")
    assert len(result.output) < 66_000


def test_a_list_that_eats_all_memory_ends_in_a_memory_error(shared):
    result = shared.run("hog = bytearray(3 << 30)")

    assert result.error_name == "MemoryError"
    assert shared.value("1 + 1") == "2"


def test_the_network_and_vsock_are_out_of_reach(shared):
    code = """
        import socket, errno
        def attempt(family, address):
            try:
                with socket.socket(family, socket.SOCK_STREAM) as s:
                    s.settimeout(1)
                    s.connect(address)
            except OSError as error:
                return errno.errorcode.get(error.errno, str(error))
            return "connected"
        print(attempt(socket.AF_INET, ("127.0.0.1", 22)))
        print(attempt(socket.AF_INET, ("169.254.169.254", 80)))
        print(attempt(socket.AF_UNIX, chr(0) + "host-abstract-socket"))
        print(attempt(40, (2, 1024)))
    """
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket,sys; s=socket.socket(socket.AF_UNIX); "
            "s.bind(chr(0)+'host-abstract-socket'); s.listen(); print('up', flush=True); "
            "sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout.readline() == b"up\n"
        seen = shared.value(code).split()
        server.stdin.close()

    assert seen == ["ECONNREFUSED", "ENETUNREACH", "ECONNREFUSED", "EAFNOSUPPORT"]


def test_no_file_or_process_of_the_host_is_visible(shared):
    code = """
        import os
        print([p for p in ("/root", "/home", "/etc", "/var", "/work", "/srv") if os.path.exists(p)])
        print(max(int(p) for p in os.listdir("/proc") if p.isdigit()) < 30)
        def writable(folder):
            try:
                open(folder + "/probe", "w").close()
                return True
            except OSError:
                return False
        print([p for p in ("/", "/usr", "/opt", "/opt/rt", "/dev", "/proc") if writable(p)])
        print(os.getuid(), [os.stat(p).st_uid for p in ("/workspace", "/tmp")])
    """
    assert shared.value(code).splitlines() == ["[]", "True", "[]", "1000 [1000, 1000]"]


def test_no_secret_of_the_launcher_is_in_any_environment(shared):
    code = """
        import os, glob
        everything = repr(dict(os.environ))
        for file in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
            try:
                everything += open(file, errors="replace").read()
            except OSError:
                pass
        print("sk-never" + "-to-be" in everything, "OPENAI" in everything)
    """
    assert shared.value(code) == "False False"


def test_privileged_system_calls_are_refused(shared):
    code = """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        def call(*numbers):
            result = libc.syscall(*numbers)
            return "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()]
        if __import__("platform").machine() == "x86_64":
            print({name: call(*n) for name, n in {
                "unshare user": (272, 0x10000000), "unshare net": (272, 0x40000000),
                "mount": (165, 0, 0, 0, 0, 0), "ptrace": (101, 16, 1, 0, 0),
                "keyctl": (250, 0, -3, 0), "io_uring_setup": (425, 1, 0), "bpf": (321, 0, 0, 0),
                "memfd_create": (319, b"x", 0), "clone newuser": (56, 0x10000011, 0, 0, 0, 0),
            }.items() if call(*n) != "EPERM"})
        else:
            print({})
    """
    assert shared.value(code) == "{}"


def test_disk_is_bounded(shared):
    code = """
        import errno, os
        def fill():
            try:
                with open("/workspace/big", "wb") as file:
                    for _ in range(100):
                        file.write(bytes(1 << 20))
            except OSError as error:
                return errno.errorcode[error.errno]
            finally:
                os.remove("/workspace/big")
        print(fill() in ("ENOSPC", "EFBIG"))
    """
    assert shared.value(code) == "True"


def test_outputs_are_counted_as_a_notebook_shows_them(notebook):
    code = """
        import subprocess, sys
        print(1)
        print(2)
        print(3, file=sys.stderr)
        display(4)
        subprocess.run(["echo", "5"])
    """
    assert notebook.execute(code).outputs == 5
    assert notebook.execute("print(1)\n1 / 0").outputs == 2
    assert notebook.execute("x = 1").outputs == 0


def test_a_cell_can_be_given_less_output(notebook):
    result = notebook.execute("print('ä' * 100)", output_bytes=10)

    assert result.output == "äääää\n[191 bytes of output dropped]\n"
    assert notebook.execute("1", output_bytes=0).output == "\n[2 bytes of output dropped]\n"
    assert notebook.execute("print('x' * 10)", output_bytes=1 << 40).output == "x" * 10 + "\n"


def test_a_file_can_be_put_into_the_working_folder(notebook):
    data = os.urandom(700_000)

    notebook.put_file("data ü.bin", data)
    notebook.put_file("data ü.bin", data[:-1])
    notebook.put_file("empty.txt", b"")

    digest = hashlib.sha256(data[:-1]).hexdigest()
    code = "import hashlib; hashlib.sha256(open('data ü.bin', 'rb').read()).hexdigest()"
    assert notebook.value(code) == repr(digest)
    assert notebook.value("open('/workspace/empty.txt').read()") == "''"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", " x"])
def test_a_file_needs_a_plain_name(notebook, name):
    with pytest.raises(ValueError, match="plain name"):
        notebook.put_file(name, b"")

    assert notebook.value("1") == "1"


def test_a_file_that_does_not_fit_ends_the_kernel_and_says_so(notebook):
    with pytest.raises(
        KernelDied, match=r"'big' of 73400320 bytes .*(ENOSPC|EFBIG).*workspace"
    ) as it:
        notebook.put_file("big", bytes(70 << 20))

    assert it.value.cause is DeathCause.FILE


@pytest.mark.parametrize(
    "trap", ["os.symlink('/workspace/victim', 'x')", "os.mkfifo('x')", "os.mkdir('x')"]
)
def test_a_file_is_not_written_through_what_a_cell_left_there(notebook, trap):
    notebook.run(f"import os\n{trap}")

    with pytest.raises(KernelDied, match=r"ELOOP|ENXIO|EISDIR"):
        notebook.put_file("x", b"text")


def test_tools_look_like_python_functions_and_objects(notebook):
    notebook.bind([SEARCH, TOKENS, ADD], echo)

    shown = notebook.value("help(search)")
    assert "search(query: str, k: int = 3, *, site: str = '') -> list[str]" in shown
    assert "Look something up." in shown
    assert "add(item: str)" in notebook.value("import inspect; help(notepad)")
    assert notebook.value("notepad.add('x')") == "['notepad.add', ['x'], {}]"
    assert notebook.value("notepad.tokens") == "['notepad.tokens', [], {}]"
    assert notebook.run("notepad.tokens = 1").error_name == "AttributeError"


def test_wrong_arguments_are_refused_before_anything_leaves_the_sandbox(notebook):
    called = []

    async def handler(name, arguments, keywords):
        called.append(name)

    notebook.bind([SEARCH], handler)

    for call in ("search()", "search('a', 1, 'b')", "search('a', query='b')", "search(what='a')"):
        result = notebook.run(call)
        assert (result.error_name, called) == ("TypeError", []), call
    assert notebook.run("search('a', site='b')").status is CellStatus.OK
    assert called == ["search"]


def test_results_that_are_too_large_or_cannot_be_sent_are_errors_in_the_cell(notebook):
    async def handler(name, arguments, keywords):
        if arguments[0] == "text":
            raise ValueError("lone surrogate: \ud800")
        return {"large": b"x" * (5 << 20), "odd": object(), "fine": b"x" * (3 << 20)}[arguments[0]]

    notebook.bind(["get"], handler)

    large = notebook.run("get('large')")
    assert large.error_name == "ToolError"
    assert "has 5,242,8" in large.output
    assert notebook.run("get('odd')").error_name == "TypeError"
    assert "lone surrogate: ?" in notebook.run("get('text')").output
    assert notebook.value("len(get('fine'))") == str(3 << 20)


def test_threads_can_call_tools_at_once(notebook):
    notebook.bind(["slow"], echo)
    code = """
        import time
        from concurrent.futures import ThreadPoolExecutor
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: slow(i)[1][0], range(16)))
        answers == list(range(16)), time.monotonic() - started < 0.7
    """
    assert notebook.value(code) == "(True, True)"


def test_an_interrupted_tool_call_leaves_the_pipe_in_order(notebook):
    async def handler(name, arguments, keywords):
        await asyncio.sleep(0.3 if arguments[0] == "slow" else 0)
        return arguments[0]

    notebook.bind(["tool"], handler)

    assert notebook.run("tool('slow')", timeout_s=0.1).status is CellStatus.TIMED_OUT
    assert notebook.value("tool('quick')") == "'quick'"
    assert notebook.value("tool('slow')") == "'slow'"


def test_a_loop_in_c_is_killed_and_only_its_kernel_dies(launch):
    victim, bystander = launch(), launch()
    started = time.monotonic()

    with pytest.raises(KernelDied, match="ignored the interrupt"):
        victim.run("sum(range(10**13))", timeout_s=0.1)

    assert time.monotonic() - started < 3
    assert bystander.value("1 + 1") == "2"
    with pytest.raises(KernelDied):
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
    with pytest.raises(KernelDied, match="protocol"):
        forger.run(code)

    assert bystander.value("1 + 1") == "2"


def test_a_kernel_that_exits_is_reported_dead_at_once(notebook):
    started = time.monotonic()

    with pytest.raises(KernelDied):
        notebook.run("import os\nos._exit(0)")

    assert time.monotonic() - started < 2


def test_forks_have_random_states_of_their_own(launch):
    code = "import random, numpy\n(random.random(), numpy.random.random())"

    assert launch().value(code) != launch().value(code)


def test_the_zygote_is_restarted_when_it_dies(loop_runner):
    launcher = make_launcher(CONFIG)

    async def scenario():
        await launcher.start()
        try:
            kernel = await launcher.launch()
            launcher._chosen._zygote._process.kill()
            with pytest.raises(KernelDied):
                await kernel.execute("import time\ntime.sleep(20)", timeout_s=30)
            await kernel.close()
            fresh = await launcher.launch()
            assert (await fresh.execute("6 * 7", timeout_s=5)).output == "42\n"
        finally:
            await launcher.close()

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
                    result = await kernel.execute("globals().get('x', 0)", timeout_s=5)
                    await kernel.execute("x = 1", timeout_s=5)
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
                return (await kernel.execute("1 + 1", timeout_s=5)).output
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

    assert {type(outcome) for outcome in loop_runner.run(scenario())} == {KernelDied}


def test_a_missing_bubblewrap_is_named_with_its_fix(loop_runner, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EnvironmentFault, match="apt-get install bubblewrap"):
        loop_runner.run(make_launcher(CONFIG).start())


def test_a_missing_runtime_asks_for_make_setup(monkeypatch, tmp_path):
    lock = tmp_path / "kernel.lock"
    lock.write_text("# another environment\n")
    monkeypatch.setattr(runtime, "_LOCK", lock)

    with pytest.raises(EnvironmentFault, match="make setup"):
        runtime.find_runtime()


def test_making_the_runtime_again_does_nothing(capsys):
    assert runtime.ensure_runtime() == runtime.find_runtime()
    assert capsys.readouterr().out == ""
