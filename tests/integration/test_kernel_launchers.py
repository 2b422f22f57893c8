"""Which launcher is taken: tried for real on machines that deny more and more."""

import ast
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from actors.kernels.interface import DeathCause
from actors.kernels.launchers import make_launcher
from actors.kernels.unsandboxed import UnsandboxedLauncher
from common.config import Kernel
from common.errors import MachineError
from tests.process_tree import descendants, wait_until_dead

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = Kernel(preload_numpy=False, grace_s=0.5)

DENYING = """
import os, struct, sys
from actors.kernels.sandboxed import seccomp
from actors.kernels.sandboxed.isolation import _CLONE_NUMBER
flags = int(sys.argv[1], 0)
program = [
    (0x20, 0, 0, 0),  # load the number of the system call
    (0x15, 0, 4, _CLONE_NUMBER[os.uname().machine]),
    (0x20, 0, 0, 16),  # load its first argument
    (0x54, 0, 0, flags),
    (0x15, 0, 1, flags),
    (0x06, 0, 0, 0x50001),  # EPERM
    (0x06, 0, 0, 0x7FFF0000),  # allow
]
seccomp.load(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Runs a command for which clone with these flags is denied."""
ANY_NAMESPACE, NESTED_NAMESPACE = 0x10000000, 0x10001000
"""New user namespaces by anyone; by the zygote alone, which also asks for a pidfd."""

ACTOR = """
import asyncio, json, logging, sys
from actors.kernels.interface import KernelDiedError
from actors.kernels.launchers import make_launcher
from common.config import Kernel
from common.errors import MachineError

logging.basicConfig(stream=sys.stderr)

async def main():
    launcher = make_launcher(Kernel(**json.loads(sys.argv[1])))
    try:
        await launcher.start()
    except MachineError as error:
        print(json.dumps({"fault": str(error)}))
        return
    kernel = await launcher.launch()
    result = await kernel.execute(sys.argv[2], timeout_s=10)
    print(json.dumps({"name": launcher.name, "level": kernel.level, "output": result.output}))
    sys.stdout.flush()
    if len(sys.argv) > 3:
        await asyncio.sleep(600)
    await launcher.close()

asyncio.run(main())
"""


def actor(denied, kernel, cell="6 * 7", *more):
    arguments = [json.dumps(kernel), cell, *more]
    command = [sys.executable, "-c", DENYING, hex(denied), "-c", ACTOR, *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(*arguments):
    with actor(*arguments) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(out), errors


def test_auto_takes_the_forked_kernels_where_it_can():
    async def scenario():
        launcher = make_launcher(CONFIG)
        await launcher.start()
        try:
            return launcher.name, launcher.level, (await launcher.launch()).level
        finally:
            await launcher.close()

    assert asyncio.run(scenario()) == ("forked", "A-forked", "A-forked")


def test_auto_falls_back_to_cold_kernels_where_namespaces_cannot_be_nested():
    found, errors = outcome(NESTED_NAMESPACE, {"launcher": "auto"})

    assert found == {"name": "cold", "level": "B-cold", "output": "42\n"}
    assert "launcher=forked cannot be used" in errors


def test_the_minimum_level_forbids_the_fallback():
    found, _ = outcome(NESTED_NAMESPACE, {"launcher": "auto", "minimum_level": "A"})

    assert "kernel.minimum_level is A" in found["fault"]
    assert "clone into new namespaces was denied" in found["fault"]


def test_nothing_starts_without_a_sandbox_and_the_fix_is_named():
    found, _ = outcome(ANY_NAMESPACE, {"launcher": "auto"})

    assert "sysctl kernel.unprivileged_userns_clone=1" in found["fault"]


def test_the_unsafe_switch_runs_plain_processes_with_a_loud_warning():
    cell = "import os; os.getuid(), os.path.exists('/etc/passwd')"

    found, errors = outcome(ANY_NAMESPACE, {"launcher": "auto", "minimum_level": "unsafe"}, cell)

    assert (found["name"], found["level"]) == ("unsandboxed", "D-unsandboxed")
    uid, seen = ast.literal_eval(found["output"])
    own = range(CONFIG.first_uid, CONFIG.first_uid + CONFIG.uids)
    assert seen
    assert uid in own if os.getuid() == 0 else uid == os.getuid()
    assert "NO SANDBOX" in errors
    assert "kernel.minimum_level = 'unsafe'" in errors


def test_nothing_survives_an_actor_without_a_sandbox():
    cell = """
import os, time
told, tell = os.pipe()
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(tell, b"x")
        while True:
            time.sleep(1)
os.read(told, 1), os.read(told, 1)
os.getcwd()
"""
    with actor(ANY_NAMESPACE, {"minimum_level": "unsafe"}, cell, "stay") as process:
        shown = process.stdout.readline()
        pids = descendants(process.pid)
        process.kill()
        left = wait_until_dead(pids, 2)

    found = json.loads(shown)
    assert found["name"] == "unsandboxed"
    assert not Path(found["output"].strip().strip("'")).exists()
    assert (len(pids) >= 4, left) == (True, set())


def test_the_unsafe_switch_changes_nothing_where_a_sandbox_starts():
    async def scenario():
        launcher = make_launcher(dataclasses.replace(CONFIG, minimum_level="unsafe"))
        await launcher.start()
        await launcher.close()
        return launcher.level

    assert asyncio.run(scenario()) == "A-forked"


def test_forked_kernels_are_refused_at_the_start_where_they_cannot_run():
    found, _ = outcome(NESTED_NAMESPACE, {"launcher": "forked"})

    assert 'kernel.launcher = "cold" (level B) does without' in found["fault"]


@pytest.mark.parametrize("name", ["cold", "jupyter"])
def test_launchers_below_the_minimum_level_are_refused(name):
    launcher = make_launcher(Kernel(launcher=name, minimum_level="A"))

    with pytest.raises(MachineError, match=r"level B, kernel.minimum_level is A; set"):
        asyncio.run(launcher.start())


def test_plain_processes_that_stop_their_init_are_killed_all_the_same():
    async def scenario():
        launcher = UnsandboxedLauncher(Kernel(preload_numpy=False))
        await launcher.start()
        kernel = await launcher.launch()
        await kernel.execute(
            "import os, signal; os.kill(os.getppid(), signal.SIGSTOP)", timeout_s=9
        )
        await asyncio.wait_for(launcher.close(), 20)
        return kernel.alive

    assert asyncio.run(scenario()) is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives user ids away")
def test_a_kernel_whose_folder_cannot_be_made_gives_its_user_id_back(monkeypatch):
    async def scenario():
        launcher = UnsandboxedLauncher(
            Kernel(preload_numpy=False, first_uid=1_899_200_000, uids=3)  # one for a kernel
        )
        await launcher.start()
        with monkeypatch.context() as broken:
            broken.setattr("tempfile.tempdir", "/nowhere")
            with pytest.raises(FileNotFoundError):
                await launcher.launch()
        shown = await (await launcher.launch()).execute("1 + 1", timeout_s=20)
        await launcher.close()
        return shown.output

    assert asyncio.run(scenario()) == "2\n"


def test_plain_processes_obey_limits_and_leave_nothing(monkeypatch):
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    async def scenario():
        launcher = UnsandboxedLauncher(
            Kernel(preload_numpy=False, sandbox_memory_mib=300, memory_mib=280)
        )
        await launcher.start()
        kernels = [await launcher.launch() for _ in range(2)]
        await kernels[0].put_file("data.txt", b"text")
        shown = await kernels[0].execute("open('data.txt').read()", timeout_s=20)
        hog = (
            "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
            "        hog = b'x' * (100 << 20)\n        time.sleep(60)\ntime.sleep(60)"
        )
        death = (
            await asyncio.gather(kernels[1].execute(hog, timeout_s=20), return_exceptions=True)
        )[0]
        folders = list(folder.iterdir())
        await launcher.close()
        return shown.output, death.cause, len(folders)

    assert asyncio.run(scenario()) == ("'text'\n", DeathCause.MEMORY, 2)
    folder.rmdir()
