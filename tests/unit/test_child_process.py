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


def test_a_child_ends_when_its_parent_is_killed() -> None:
    child = (
        "import os, sys, time\n"
        "from common.child_process import die_with_parent\n"
        "die_with_parent(int(sys.argv[1]))\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-P', '-c', {child!r}, str(os.getpid())])\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", parent],
        env=module_environment(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == ""  # the pipe's last writer, the child, is gone
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_text()
