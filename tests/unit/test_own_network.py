"""In a network of its own a process reaches its own ports, and nobody else does."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.config import Config
from launch.plan.topology import RunFiles, members, plan_run
from launch.starters import own_network, specs
from tests.waiting import wait_for

START = [sys.executable, "-I", "-S", own_network.__file__]
SERVER = """
import os, socket, sys
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[1])
unix.listen()
port = tcp.getsockname()[1]
with socket.create_connection(("127.0.0.1", port)):
    tcp.accept()[0].close()
print(port, os.getuid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, Path]]:
    """A port and a Unix socket, of a process that has just reached its own port."""
    path = folder / "unix"
    command = [*START, sys.executable, "-I", "-S", "-c", SERVER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port, user = process.stdout.readline().split()
        assert int(user) == os.getuid()
        yield int(port), path
        process.communicate()


@pytest.mark.sandbox
def test_a_port_is_reached_from_inside_only_and_a_unix_socket_from_everywhere(
    tmp_path: Path,
) -> None:
    with server(tmp_path) as (port, path):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_is_not_root_gets_one_too_and_stays_who_it_is(tmp_path: Path) -> None:
    program = shutil.copy(own_network.__file__, "/tmp/lz-own-network.py")
    try:
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             "/usr/bin/python3", "-I", "-S", program, "sh", "-c",
             "id -u; id -g; grep -c : /proc/net/dev; grep Cap[EP] /proc/self/status"],
            capture_output=True, text=True, cwd="/",
        )  # fmt: skip
    finally:
        os.unlink(program)

    user, group, interfaces, *capabilities = done.stdout.splitlines()
    assert (user, group, interfaces) == ("65534", "65534", "1"), done.stderr
    assert {line.split()[1] for line in capabilities} == {"0" * 16}


def test_the_command_takes_its_place_with_its_arguments_status_and_process_id() -> None:
    program = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(7)"
    command = [*START, sys.executable, "-I", "-c", program, "a b", "--check"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate()

    assert said == f"{process.pid} ['a b', '--check']\n"
    assert process.returncode == 7


def test_it_dies_with_who_started_it() -> None:
    parent = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-I", "-c", parent, *START, "sleep", "600"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = Path(f"/proc/{process.stdout.readline().strip()}")
        wait_for(lambda: (child / "cmdline").read_bytes().startswith(b"sleep"))
        process.kill()

    wait_for(lambda: not child.exists() or " Z " in (child / "stat").read_text())


@pytest.mark.sandbox
def test_where_there_is_none_the_command_runs_all_the_same_and_says_so() -> None:
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns",
             "--cap-drop", "ALL", "--"]  # fmt: skip

    tried = subprocess.run([*bwrap, *START], capture_output=True, text=True)
    run = subprocess.run([*bwrap, *START, "echo", "ran"], capture_output=True, text=True)

    assert subprocess.run(START).returncode == 0
    assert (tried.returncode, tried.stderr) == (1, "")
    assert (run.returncode, run.stdout) == (0, "ran\n")
    assert "no network of its own" in run.stderr
    assert "other users of the machine reach its ports" in run.stderr


def test_processes_with_ports_of_their_own_are_started_so(
    tmp_path: Path,
) -> None:
    config, files = Config(), RunFiles(config=tmp_path / "config.json", private=tmp_path)
    plan = plan_run(config, files, dict.fromkeys(members(config), "key"))

    (server,) = specs.policy_servers(plan, config, tmp_path)
    learner = specs.learner(plan, tmp_path, grace_s=5, hint=str)
    tuned = specs.fine_tuning(
        "sft",
        ("learner.sft.main",),
        ranks=1,
        threads=1,
        private=tmp_path,
        log=tmp_path / "log",
        hint=str,
    )
    (actor,) = specs.actors(plan, tmp_path, grace_s=5, hint=str)

    for spec in (server, learner, tuned):
        assert spec.command[:4] == tuple(START)
    assert own_network.__file__ not in actor.command
