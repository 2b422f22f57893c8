"""The Jupyter launcher: any kernel in a sandbox, whose messages are never trusted."""

import asyncio
import hashlib
import json
import os
import resource
import textwrap
import threading
import time

import pytest
import zmq

from actors.kernels.interface import CellStatus, DeathCause, KernelDiedError
from actors.kernels.jupyter.launcher import JupyterLauncher
from actors.kernels.tool_specs import ToolSpec
from common.config import Kernel
from common.errors import KernelError, MachineError

pytestmark = pytest.mark.sandbox
FIND_KERNEL = """
import gc
from ipykernel.kernelbase import Kernel
kernel = next(thing for thing in gc.get_objects() if isinstance(thing, Kernel))
send, parent = kernel.session.send, kernel.get_parent()
"""
ECHO_KERNEL = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Echo(Kernel):
    implementation = banner = "echo"
    implementation_version = "1"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    async def do_execute(self, code, silent, *arguments, **keywords):
        for name in ("stdout", "stdout", "stderr"):
            self.send_response(self.iopub_socket, "stream", {"name": name, "text": code})
        data = {"text/plain": code.upper(), "text/html": "<b>"}
        shown = {"data": data, "metadata": {}, "execution_count": 1}
        self.send_response(self.iopub_socket, "execute_result", shown)
        if code == "fail":
            lines = ["\\x1b[31mEchoError\\x1b[0m: failed"]
            error = {"ename": "EchoError", "evalue": "failed", "traceback": lines}
            self.send_response(self.iopub_socket, "error", error)
            return {"status": "error", **error}
        return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Echo)
"""
STOCK_KERNEL = "from ipykernel.kernelapp import main; main()"


@pytest.fixture(scope="module")
def kernelspecs(tmp_path_factory):
    """Kernelspecs ``echo`` and ``stock`` where Jupyter finds them."""
    folder = tmp_path_factory.mktemp("jupyter")
    for name, language, code in (
        ("echo", "echo", ECHO_KERNEL),
        ("stock", "python", STOCK_KERNEL),
    ):
        made = folder / "kernels" / name
        made.mkdir(parents=True)
        argv = ["python3", "-c", code, "-f", "{connection_file}"]
        text = {"argv": argv, "display_name": name, "language": language}
        (made / "kernel.json").write_text(json.dumps(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield


class Notebook:
    """A launched kernel with blocking methods."""

    def __init__(self, runner, name):
        self.runner = runner
        config = Kernel(launcher="jupyter", kernelspec=name, workspace_mib=8)
        self.launcher = JupyterLauncher(config)
        runner.run(self.launcher.start())
        self.kernel = runner.run(self.launcher.launch())

    def run(self, code, timeout_s=20.0, **options):
        code = textwrap.dedent(code)
        return self.runner.run(self.kernel.execute(code, timeout_s=timeout_s, **options))

    def put(self, name, data):
        self.runner.run(self.kernel.put_file(name, data))

    def close(self):
        self.runner.run(self.kernel.close())
        self.runner.run(self.launcher.close())


@pytest.fixture
def notebook(request, loop_runner, kernelspecs):
    made = Notebook(loop_runner, getattr(request, "param", "python3"))
    yield made
    made.close()


def kernel_of(name):
    return pytest.mark.parametrize("notebook", [name], indirect=True, ids=[name])


in_every_python = pytest.mark.parametrize("notebook", ["python3", "stock"], indirect=True)


@kernel_of("echo")
def test_a_kernel_of_another_language_runs_and_its_outputs_are_counted(notebook):
    fine, failed = notebook.run("hello"), notebook.run("fail")

    assert (fine.status, fine.output, fine.outputs) == (CellStatus.OK, "hello" * 3 + "HELLO\n", 3)
    assert (failed.status, failed.error_name, failed.outputs) == (CellStatus.ERROR, "EchoError", 4)
    assert failed.output.endswith("EchoError: failed\n")


@kernel_of("echo")
def test_a_kernel_of_another_language_takes_no_files_and_lives_on(notebook):
    with pytest.raises(KernelError, match="its language is echo"):
        notebook.put("data.txt", b"text")

    assert notebook.run("still").output.endswith("STILL\n")


@kernel_of("stock")
def test_a_stock_kernel_is_interrupted_in_the_way_its_kernelspec_says(notebook):
    notebook.run("kept = 'still here'")

    result = notebook.run("import time\nprint('on')\ntime.sleep(60)", timeout_s=0.5)

    assert (result.status, result.error_name) == (CellStatus.TIMED_OUT, "KeyboardInterrupt")
    assert notebook.run("kept").output == "'still here'\n"


@kernel_of("stock")
def test_a_stock_kernel_has_tools(notebook):
    async def handler(name, arguments, keywords):
        return f"{name}{arguments}"

    notebook.kernel.bind_tools([ToolSpec(name="ask", doc="Asks.")], handler)

    assert notebook.run("ask()").output == "'ask()'\n"
    assert notebook.run("ask = 1").output == "[ask is a tool again: use another name]\n"
    notebook.run("%reset -f")
    assert notebook.run("ask()").output == "'ask()'\n"


@in_every_python
def test_files_arrive_whole_and_again(notebook):
    data = os.urandom(700_000)
    notebook.put("data.bin", data)
    notebook.put("leer.txt", b"")
    notebook.put("mit blank ä.txt", b"first")
    notebook.put("mit blank ä.txt", b"2nd")

    code = """
        import hashlib, os
        print(hashlib.sha256(open("data.bin", "rb").read()).hexdigest())
        print(open("mit blank ä.txt").read(), os.path.getsize("leer.txt"))
        print(sorted(n for n in globals() if "piece" in n or "guest" in n))
    """

    assert notebook.run(code).output.splitlines() == [
        hashlib.sha256(data).hexdigest(),
        "2nd 0",
        "[]",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "nul\0", " blank"])
def test_only_plain_file_names_are_taken(any_kernel, name):
    with pytest.raises(ValueError, match="plain name"):
        any_kernel.put(name, b"")


@pytest.fixture(scope="module")
def any_kernel(loop_runner, kernelspecs):
    made = Notebook(loop_runner, "lzero-sandbox")
    yield made
    made.close()


def test_a_file_does_not_follow_a_link(notebook):
    notebook.run("import os\nos.symlink('/tmp/elsewhere', 'link')")

    with pytest.raises(KernelDiedError, match="'link' of 4 bytes") as caught:
        notebook.put("link", b"data")

    assert caught.value.cause is DeathCause.FILE


def test_a_file_that_does_not_fit_ends_the_kernel(notebook):
    with pytest.raises(KernelDiedError, match=r"kernel.workspace_mib") as caught:
        notebook.put("big", bytes(9 << 20))

    assert caught.value.cause is DeathCause.FILE


def test_a_cell_can_have_a_lower_output_limit(notebook):
    result = notebook.run("print('x' * 1000)", output_bytes=100)

    assert result.output == "x" * 50 + "\n[901 bytes of output dropped]\n" + "x" * 49 + "\n"
    assert notebook.run("print('x' * 1000)").dropped_bytes == 0
    assert (
        notebook.run("print('x' * 100_000)", output_bytes=1 << 30).dropped_bytes == 100_001 - 65536
    )


class Memory:
    """The highest resident memory of this process inside of the block, MiB above its start."""

    def __enter__(self):
        self.start, self.highest, self.ended = self.now(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *details):
        self.ended.set()
        self.thread.join()

    def watch(self):
        while not self.ended.wait(0.005):
            self.highest = max(self.highest, self.now() - self.start)

    @staticmethod
    def now():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_flood_of_output_costs_the_host_no_memory(notebook):
    notebook.run("1")

    with Memory() as memory:
        result = notebook.run("while True: print('x' * 10**6)", timeout_s=0.8)

    assert result.status is CellStatus.TIMED_OUT
    assert result.dropped_bytes > 10**7
    assert len(result.output) < 66_000
    assert memory.highest < 8


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("notebook", "flood"),
    [
        ("python3", "send(kernel.iopub_socket, 'stream', dict(name='stdout', text='x' * 10**6))"),
        ("python3", "send(kernel.shell_stream, 'execute_reply', dict(t='x' * 10**6), ident=who)"),
        ("python3", "send(kernel.shell_stream, 'execute_reply', dict(t='x' * 10**5), ident=who)"),
        ("stock", "send(kernel.iopub_socket, 'stream', dict(text='x' * 10**6), parent=parent)"),
        ("stock", "send(kernel.shell_stream, 'execute_reply', dict(t='x' * 10**6), ident=who)"),
        ("stock", "send(kernel.iopub_socket, 'stream', dict(text='x'), parent=parent)"),
    ],
    indirect=["notebook"],
)
def test_a_flood_of_forged_messages_ends_soon_and_within_bounds(notebook, flood):
    notebook.run("1")
    code = f"{FIND_KERNEL}\nwho = kernel._shell_parent_ident.get()\nwhile True: {flood}"
    started = time.monotonic()

    with Memory() as memory:
        try:
            end = notebook.run(code, timeout_s=1.5).status
        except KernelDiedError as error:
            end = error.cause

    ends = (CellStatus.TIMED_OUT, DeathCause.PROTOCOL, DeathCause.IGNORED_INTERRUPT)
    assert end in ends
    assert time.monotonic() - started < 20
    assert memory.highest < 96


@pytest.mark.parametrize(
    "reply",
    [
        "{'status': 'ok', 'observation': ['text', -1, 0]}",
        "{'status': 'ok', 'observation': ['text', 10**30, 10**30]}",
        '''b'{"observation": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"''',
        pytest.param("b'no json'", marks=pytest.mark.nightly),
        pytest.param("b'[]'", marks=pytest.mark.nightly),
        pytest.param("b'\\xff'", marks=pytest.mark.nightly),
        pytest.param("{}", marks=pytest.mark.nightly),
        pytest.param("{'status': 'ok'}", marks=pytest.mark.nightly),
        pytest.param("{'status': 'ok', 'observation': ['text', 0]}", marks=pytest.mark.nightly),
        pytest.param("{'observation': [['text'], 0, 0]}", marks=pytest.mark.nightly),
        pytest.param("{'observation': 'text'}", marks=pytest.mark.nightly),
    ],
)
def test_a_forged_reply_kills_only_its_kernel(notebook, any_kernel, reply):
    forge = f"""
for _ in range(20):
    ident = kernel._shell_parent_ident.get()
    send(kernel.shell_stream, "execute_reply", {reply}, parent, ident=ident)
import time
time.sleep(60)
"""
    with pytest.raises(KernelDiedError, match="broke its protocol") as caught:
        notebook.run(FIND_KERNEL + forge)

    assert caught.value.cause is DeathCause.PROTOCOL
    assert any_kernel.run("1 + 1").output == "2\n"


@pytest.mark.parametrize(
    ("reply", "output", "error_name"),
    [
        ('{"status": "ok", "observation": ["x" * 200_000, 0, 5]}', "x" * 65600, None),
        (
            r"""rb'{"status": 7, "ename": "\ud800", "observation": ["a\udfffb", 0, 5]}' """,
            "a?b",
            "?",
        ),
        (
            '{"status": "error", "ename": [[]], "observation": ["", 0, 5]}',
            "",
            "Error",
        ),
    ],
)
def test_a_forged_observation_is_cut_and_taken_as_what_it_is(notebook, reply, output, error_name):
    forge = f"""
ident = kernel._shell_parent_ident.get()
send(kernel.shell_stream, "execute_reply", {reply}, parent, ident=ident)
"""
    result = notebook.run(FIND_KERNEL + forge)

    assert (result.output, result.outputs, result.error_name) == (output, 5, error_name)


@in_every_python
def test_the_hosts_sockets_refuse_large_messages(notebook):
    client = notebook.kernel._open._client
    channels = [client.shell_channel] + [client.iopub_channel] * (not notebook.kernel._observed)

    for channel in channels:
        assert 0 < channel.socket.getsockopt(zmq.MAXMSGSIZE) <= 4 << 20
        assert channel.socket.getsockopt(zmq.RCVHWM) == 8


def test_a_reply_that_is_too_large_ends_its_kernel_only(notebook, any_kernel):
    prepare = """
import signal, time
reply = {"status": "ok", "observation": ["x" * (32 << 20), 0, 5]}
"""
    forge = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
ident = kernel._shell_parent_ident.get()
send(kernel.shell_stream, "execute_reply", reply, kernel.get_parent(), ident=ident)
time.sleep(60)
"""
    notebook.run(FIND_KERNEL + prepare)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(KernelDiedError, match="ignored the interrupt"):
        notebook.run(forge, timeout_s=0.5)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
    assert any_kernel.run("1 + 1").output == "2\n"


def test_a_kernel_that_is_not_installed_is_named(loop_runner):
    launcher = JupyterLauncher(Kernel(launcher="jupyter", kernelspec="cobol"))

    with pytest.raises(MachineError, match=r"no Jupyter kernel 'cobol' .*kernelspec list"):
        loop_runner.run(launcher.start())


def test_our_own_kernelspec_needs_no_installation(loop_runner, monkeypatch, tmp_path):
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("jupyter_core.paths.ENV_JUPYTER_PATH", [])

    notebook = Notebook(loop_runner, "lzero-sandbox")
    try:
        assert notebook.run("6 * 7").output == "42\n"
    finally:
        notebook.close()


def test_cancelling_a_cell_ends_its_kernel(loop_runner, notebook):
    async def scenario():
        cell = asyncio.create_task(notebook.kernel.execute("while True: pass", timeout_s=60))
        await asyncio.wait({cell}, timeout=0.2)
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
        with pytest.raises(KernelDiedError) as caught:
            await notebook.kernel.execute("1", timeout_s=5)
        return caught.value.cause

    assert loop_runner.run(scenario()) is DeathCause.CANCELLED


def test_an_interrupted_cell_makes_room_for_the_next_at_once(loop_runner, notebook):
    notebook.run("import time")

    async def scenario():
        waits = []
        for _ in range(5):
            await notebook.kernel.execute("time.sleep(60)", timeout_s=0.1)
            started = time.monotonic()
            await notebook.kernel.execute("1", timeout_s=5)
            waits.append(time.monotonic() - started)
        return sorted(waits)[2]

    assert loop_runner.run(scenario()) < 0.1
