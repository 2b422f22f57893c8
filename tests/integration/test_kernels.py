"""Real sandboxed kernels: what a cell can do and what it cannot, whatever the launcher."""

import os
import subprocess
import sys

import pytest

from actors.kernels.interface import CellStatus
from actors.kernels.launchers import make_launcher
from common.config import Kernel
from tests.notebook import Notebook, echo

pytestmark = pytest.mark.sandbox
SECRET = "sk-never-to-be-seen-inside"


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


@pytest.fixture(scope="module", params=["forked", "cold", "jupyter"])
def shared(request, loop_runner):
    """One kernel per launcher for the cells that harm nobody."""
    made = request.getfixturevalue(request.param)
    notebook = Notebook(loop_runner, loop_runner.run(made.launch()))
    yield notebook
    notebook.close()


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
    result = shared.run("print('y' * 100_000)\nraise KeyError('at the end')")

    assert result.dropped_bytes > 100_001 - 65536
    assert f"y\n[{result.dropped_bytes} bytes of output dropped]\ny" in result.output
    assert result.output.endswith("KeyError: 'at the end'\n")
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
        print([p for p in ("/root", "/home", "/var", "/work", "/srv") if os.path.exists(p)])
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
