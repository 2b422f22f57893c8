"""The installed kernelspec works with Jupyter's own managers and passes Jupyter's own suite."""

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jupyter_kernel_test
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager, start_new_async_kernel, start_new_kernel
from jupyter_client.multikernelmanager import AsyncMultiKernelManager

from actors.kernels import runtime
from common.errors import MachineError

pytestmark = pytest.mark.sandbox
NAME = "lzero-sandbox"
IMPORT = "from IPython.display import HTML, JSON, Image, Math, display; "


class TestKernelProtocol(jupyter_kernel_test.KernelTests):
    kernel_name = NAME
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = ({"text": "''.isalph", "matches": {"isalpha"}},)
    complete_code_samples = ("1", "print('hello')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2", "if True:")
    invalid_code_samples = ("import = 7q", "'hello")
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('told you')"
    code_execute_result = (
        {"code": "1 + 2 + 3", "result": "6"},
        {"code": "[n * n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {
            "code": "from IPython.display import HTML; HTML('<b>bold</b>')",
            "result": "<b>bold</b>",
            "mime": "text/html",
        },
    )
    code_display_data = (
        {"code": IMPORT + "display(HTML('<b>'))", "mime": "text/html"},
        {"code": IMPORT + "display(Math('x^2'))", "mime": "text/latex"},
        {"code": IMPORT + "display(JSON({}))", "mime": "application/json"},
        {"code": IMPORT + "display(Image(b'\\x89PNG\\r\\n\\x1a\\n'))", "mime": "image/png"},
    )
    # IPython answers a range with session 0, "the current one", which the suite does not expect.
    supported_history_operations = ("tail", "search")
    code_history_pattern = "1 ? 2*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestKernelWelcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = NAME
    support_iopub_welcome = True


def shown(client, code, timeout=20, **options):
    """Run a cell as a notebook does; its text, streams and results together."""
    texts = []

    def collect(message):
        content = message["content"]
        kind = message["msg_type"]
        if kind == "stream":
            texts.append(content["text"])
        elif kind in ("execute_result", "display_data"):
            texts.append(content["data"]["text/plain"] + "\n")
        elif kind == "error":
            texts.append(content["ename"] + "\n")

    options = {"store_history": True, "allow_stdin": False, **options}
    client.execute_interactive(code, output_hook=collect, timeout=timeout, **options)
    return "".join(texts)


@pytest.fixture(scope="module")
def notebook():
    """A kernel of plain jupyter_client, as a notebook server has it: (manager, client)."""
    manager, client = start_new_kernel(kernel_name=NAME)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def sandbox_processes():
    """Pids of bwrap processes that this process started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if "(bwrap)" in stat and int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.append(int(entry.name))
    return found


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_the_kernelspec_is_installed_with_the_package():
    folder = KernelSpecManager().find_kernel_specs()[NAME]
    specification = KernelSpecManager().get_kernel_spec(NAME)

    assert Path(folder).is_relative_to(sys.prefix)
    assert specification.display_name == "Python (L-Zero sandbox)"
    assert "{connection_file}" in specification.argv


def test_a_cell_is_really_sandboxed(notebook):
    code = """
        import os, socket
        def reach(address):
            try:
                socket.create_connection(address, timeout=1).close()
                return "reached"
            except OSError as error:
                return type(error).__name__
        print(os.getuid(), os.getpid(), os.getcwd(), "PATH" in os.environ)
        print([p for p in ("/root", "/home", "/var", "/work") if os.path.exists(p)])
        print(reach(("127.0.0.1", 22)), reach(("10.0.0.1", 80)))
        print({k for k in os.environ if "TEST" in k})
    """
    os.environ["LZERO_TEST_SECRET"] = "never inside"
    try:
        lines = shown(notebook[1], textwrap.dedent(code)).splitlines()
    finally:
        del os.environ["LZERO_TEST_SECRET"]

    assert lines == ["1000 2 /workspace True", "[]", "ConnectionRefusedError OSError", "set()"]


def test_input_asks_the_frontend(notebook):
    client = notebook[1]
    answer = lambda message: client.input(message["content"]["prompt"].upper())  # noqa: E731

    seen = shown(client, "print('got', input('name? '))", allow_stdin=True, stdin_hook=answer)

    assert seen == "got NAME? \n"


def test_comms_reach_the_kernel_and_come_back(notebook):
    _, client = notebook
    shown(
        client,
        "import comm\n"
        "def opened(channel, message):\n"
        "    channel.on_msg(lambda m: channel.send({'twice': 2 * m['content']['data']['n']}))\n"
        "comm.get_comm_manager().register_target('doubler', opened)",
    )
    for kind, extra in (("comm_open", {"target_name": "doubler"}), ("comm_msg", {})):
        content = {"comm_id": "c1", "data": {"n": 21}, **extra}
        client.shell_channel.send(client.session.msg(kind, content))

    while (message := client.get_iopub_msg(timeout=10))["msg_type"] != "comm_msg":
        pass

    assert message["content"]["data"] == {"twice": 42}


@pytest.mark.parametrize("mode", ["signal", pytest.param("message", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "code",
    [
        "import time\nprint('on')\ntime.sleep(60)",
        "import asyncio\nprint('on')\nawait asyncio.sleep(60)",
        "print('on')\nwhile True: pass",
        "import subprocess\nprint('on')\nsubprocess.run(['sleep', '60'])",
    ],
    ids=["sleep", "await", "loop", "process"],
)
def test_a_cell_can_be_interrupted(notebook, mode, code):
    manager, client = notebook
    shown(client, "kept = 'still here'")
    specification, before = manager.kernel_spec, manager.kernel_spec.interrupt_mode
    specification.interrupt_mode = mode
    started = time.monotonic()

    def interrupt_when_it_runs(message):
        if message["content"].get("text", "").startswith("on"):
            manager.interrupt_kernel()

    try:
        reply = client.execute_interactive(code, output_hook=interrupt_when_it_runs, timeout=20)
    finally:
        specification.interrupt_mode = before

    assert reply["content"]["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert time.monotonic() - started < 15
    assert shown(client, "kept") == "'still here'\n"


@pytest.mark.parametrize("now", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_the_same_client_goes_on_after_a_restart(notebook, now):
    manager, client = notebook
    shown(client, "x = 1\nopen('left', 'w').close()")
    before = sandbox_processes()

    manager.restart_kernel(now=now)
    client.wait_for_ready(timeout=30)

    assert manager.is_alive()
    assert (
        shown(client, "import os\n'x' in globals(), os.path.exists('left')") == "(False, False)\n"
    )
    assert not set(before) & set(sandbox_processes())


def test_another_process_of_the_user_can_connect(notebook):
    manager, client = notebook
    shown(client, "shared = 'between processes'")
    code = """
        import sys
        from jupyter_client.blocking import BlockingKernelClient
        client = BlockingKernelClient(connection_file=sys.argv[1])
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=20)
        client.execute_interactive("print(shared)", timeout=20)
        client.stop_channels()
    """

    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), manager.connection_file],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert result.stdout == "between processes\n", result.stderr


def live_once(now):
    """A kernel from its start to its shutdown."""
    manager = KernelManager(kernel_name=NAME)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    assert manager.is_alive()
    client.stop_channels()
    manager.shutdown_kernel(now=now)
    assert not manager.is_alive()
    assert not manager.has_kernel


def test_a_shutdown_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    processes = sandbox_processes()
    live_once(now=True)
    descriptors = len(os.listdir("/proc/self/fd"))

    live_once(now=False)

    assert sandbox_processes() == processes
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_a_missing_runtime_is_named_with_its_fix(monkeypatch, tmp_path):
    lock = tmp_path / "kernel.lock"
    lock.write_text("# another environment\n")
    monkeypatch.setattr(runtime, "_LOCK", lock)
    manager = KernelManager(kernel_name=NAME)
    descriptors = len(os.listdir("/proc/self/fd"))

    with pytest.raises(MachineError, match="make setup"):
        manager.start_kernel()

    assert not manager.has_kernel
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_command_that_is_not_there_is_named():
    manager = KernelManager(kernel_name=NAME)
    manager.kernel_spec.argv = ["no-such-kernel", "{connection_file}"]

    manager.start_kernel()

    wait_until(lambda: not manager.is_alive())
    assert manager.provisioner.exit_code() == 1
    manager.shutdown_kernel(now=True)


@pytest.mark.nightly
def test_the_asynchronous_manager_starts_and_restarts_it():
    async def scenario():
        manager, client = await start_new_async_kernel(kernel_name=NAME)
        try:
            await manager.restart_kernel(now=True)
            await client.wait_for_ready(timeout=30)
            client.execute("6 * 7")
            while True:
                message = await client.get_iopub_msg(timeout=20)
                if message["msg_type"] == "execute_result":
                    return message["content"]["data"]["text/plain"]
        finally:
            client.stop_channels()
            await manager.shutdown_kernel()

    assert asyncio.run(scenario()) == "42"


@pytest.mark.nightly  # the server looks every three seconds
def test_a_server_notices_a_dead_kernel_and_starts_it_again():
    async def scenario():
        kernels = AsyncMultiKernelManager()
        assert kernels.kernel_manager_class == "jupyter_client.ioloop.AsyncIOLoopKernelManager"
        kernel_id = await kernels.start_kernel(kernel_name=NAME)
        manager = kernels.get_kernel(kernel_id)
        restarted = asyncio.get_running_loop().create_future()
        manager.add_restart_callback(lambda: restarted.set_result(None))
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=30)
            client.execute("import os\nos._exit(1)")
            await asyncio.wait_for(restarted, 20)
            await client.wait_for_ready(timeout=30)
            return await manager.is_alive()
        finally:
            client.stop_channels()
            await kernels.shutdown_all(now=True)

    assert asyncio.run(scenario())


def test_the_sandbox_dies_with_the_server_process():
    code = f"""
        import sys
        from jupyter_client.manager import start_new_kernel
        manager, client = start_new_kernel(kernel_name={NAME!r})
        client.execute("while True: pass")
        print(manager.provisioner._process.pid, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        sandbox = os.pidfd_open(int(server.stdout.readline()))
        inside = descendants(server.pid)
        server.kill()

        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside), 5)

    os.close(sandbox)
    assert len(inside) >= 3


def descendants(root):
    """Pids of all processes below ``root``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if entry.name.isdigit():
            parents[int(entry.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}
