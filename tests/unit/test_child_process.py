"""Children run this checkout's code wherever they are started, and end with their parent."""

import os
import subprocess
import sys
from pathlib import Path

from common.child_process import SOURCE_ROOT, module_command, module_environment


def test_a_module_comes_from_this_checkout_whatever_the_folder_and_what_else_is_installed(
    tmp_path: Path,
) -> None:
    for folder in (tmp_path / "here", tmp_path / "installed"):
        (folder / "common").mkdir(parents=True)
        (folder / "common" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    environment = module_environment({**os.environ, "PYTHONPATH": str(tmp_path / "installed")})
    code = "import common; print(common.__path__[0])"
    child = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == str(SOURCE_ROOT / "common")
    assert module_command("common.tasks", "x")[1:] == ("-P", "-m", "common.tasks", "x")


def test_a_child_gets_its_arguments_and_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time\nprint(os.getpid(), sys.argv[1:], flush=True)\ntime.sleep(60)"
    )
    parent = (
        "import subprocess, time\n"
        "from common.child_process import child_command\n"
        "subprocess.Popen(child_command('sleeper', 'a', '-b'))\n"
        "time.sleep(60)"
    )
    environment = module_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    with subprocess.Popen(
        [sys.executable, "-P", "-c", parent],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, arguments = process.stdout.readline().split(maxsplit=1)
        assert arguments.strip() == "['a', '-b']"
        process.kill()
        assert process.stdout.read() == ""  # the pipe's last writer, the child, is gone
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_text()
