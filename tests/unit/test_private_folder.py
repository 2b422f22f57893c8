"""Sockets and keys of a run are in a folder that only its user enters, and gone afterwards."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.child_process import SOURCE_ROOT, module_environment
from common.config import Actors, Config
from common.plan_file import keys_file, load_plan, own_keys
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles, members
from launch.starters.private import _LONGEST, compiled_before, make_plan, private_folder
from learner.coordination.intake import ACTOR_LIMITS
from tests.listeners import as_root

TMP = Path("/tmp")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own runtime folder, with a short path."""
    folder = TMP / f"lz-test-{os.getpid()}"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    folder.rmdir()  # nothing is left in it


def test_it_is_its_users_alone_linked_from_the_run_and_gone_at_the_end(
    run: Path, runtime: Path
) -> None:
    umask = os.umask(0)
    try:
        with private_folder(run) as folder:
            assert folder.parent == runtime
            assert folder.stat().st_mode & 0o7777 == 0o700
            assert folder.stat().st_uid == os.getuid()
            assert (run / "private").readlink() == folder
            (folder / "some.key").write_text("x")
    finally:
        os.umask(umask)

    assert not folder.exists()
    assert list(run.iterdir()) == []


def test_it_is_gone_when_the_run_fails(run: Path, runtime: Path) -> None:
    with pytest.raises(KeyboardInterrupt), private_folder(run) as folder:
        raise KeyboardInterrupt

    assert not folder.exists()
    assert list(run.iterdir()) == []


def test_every_start_has_another(run: Path, runtime: Path) -> None:
    with private_folder(run) as first:
        pass
    with private_folder(run) as second:
        pass

    assert first != second


def test_what_a_killed_start_left_is_removed_by_the_next(run: Path, runtime: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from launch.starters.private import private_folder\n"
        "with private_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a0.key').write_text('secret')\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(run)], cwd=SOURCE_ROOT,
        env=module_environment(os.environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().decode().strip())
        killed.send_signal(signal.SIGKILL)
    assert (left / "a0.key").is_file()

    with private_folder(run) as folder:
        assert folder != left
        assert not left.exists()


@pytest.mark.parametrize("target", ["other", "lzero-file"])
def test_a_link_to_anything_else_takes_nothing_with_it(
    run: Path, runtime: Path, tmp_path: Path, target: str
) -> None:
    """The run folder may have been copied, or written by somebody else."""
    precious = tmp_path / target
    if target == "other":
        precious.mkdir()
        (precious / "work").write_text("kept")
    else:
        precious.write_text("kept")
    (run / "private").symlink_to(precious)

    with private_folder(run):
        pass

    assert (precious / "work" if precious.is_dir() else precious).read_text() == "kept"


def test_a_folder_that_another_link_points_to_is_not_followed(
    run: Path, runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "work").write_text("kept")
    (tmp_path / "lzero-link").symlink_to(tmp_path / "real")
    (run / "private").symlink_to(tmp_path / "lzero-link")

    with private_folder(run):
        pass

    assert (tmp_path / "real" / "work").read_text() == "kept"


def test_a_link_whose_folder_is_gone_is_replaced(run: Path, runtime: Path) -> None:
    (run / "private").symlink_to("/tmp/lzero-gone")

    with private_folder(run) as folder:
        assert (run / "private").readlink() == folder


@pytest.mark.parametrize("unfit", ["unset", "too long", "not there", "a link", "a file"])
def test_without_a_runtime_folder_that_fits_it_is_in_tmp(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfit: str
) -> None:
    short = TMP / f"lz-unfit-{os.getpid()}"
    long = tmp_path / ("x" * 60)
    long.mkdir()
    candidate = {"too long": long}.get(unfit, short)
    if unfit == "a link":
        short.symlink_to(tmp_path)
    if unfit == "a file":
        short.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "" if unfit == "unset" else str(candidate))
    try:
        with private_folder(run) as folder:
            assert folder.parent == TMP
            assert folder.stat().st_mode & 0o7777 == 0o700
    finally:
        short.unlink(missing_ok=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_runtime_folder_of_somebody_else_is_not_used(run: Path, runtime: Path) -> None:
    os.chown(runtime, 65534, 65534)

    with private_folder(run) as folder:
        assert folder.parent == TMP


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_runtime_folder_in_which_others_may_rename_is_not_used(
    run: Path, runtime: Path, mode: int
) -> None:
    """They would put a folder of theirs in the place of ours, and get the keys."""
    runtime.chmod(mode)

    with private_folder(run) as folder:
        assert folder.parent == TMP


@pytest.mark.parametrize("open_to", ["everybody", pytest.param("its owner", marks=as_root)])
def test_nor_one_that_others_may_rename(
    run: Path, monkeypatch: pytest.MonkeyPatch, open_to: str
) -> None:
    with tempfile.TemporaryDirectory(dir=TMP) as above:
        runtime = Path(above) / "runtime"
        runtime.mkdir(mode=0o700)
        if open_to == "everybody":
            Path(above).chmod(0o777)
        else:
            os.chown(above, 65534, 65534)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

        with private_folder(run) as folder:
            assert folder.parent == TMP


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_what_was_compiled_is_kept_only_where_nobody_else_puts_anything(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    with tempfile.TemporaryDirectory(dir=TMP) as cache:
        Path(cache).chmod(mode)
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        kept = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/lzero/compiled"}

        assert compiled_before() == ({} if mode == 0o777 else kept)
        assert (Path(cache) / "lzero" / "compiled").stat().st_mode & 0o777 == 0o700


def test_without_a_cache_folder_nothing_that_was_compiled_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")

    assert compiled_before() == {}


def test_a_link_on_the_way_to_the_runtime_folder_is_gone_once(
    run: Path, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns the link may let it point elsewhere later."""
    (runtime / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(runtime)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "link" / "real"))

    with private_folder(run) as folder:
        assert folder.parent == runtime / "real"
    (runtime / "real").rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_reads_and_reaches_nothing_in_it(
    run: Path, runtime: Path
) -> None:
    runtime.chmod(0o755)
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "for look in (os.listdir, lambda f: open(f + '/a0.key'),\n"
        "             lambda f: open(f + '/plan.json'),\n"
        "             lambda f: socket.socket(socket.AF_UNIX).connect(f + '/coordinator')):\n"
        "    try:\n"
        "        look(sys.argv[1])\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    with private_folder(run) as folder:
        plan = make_plan(Config(), RunFiles(config=run / "config.json", private=folder))
        with Wire(own_keys(plan, "learner")) as wire:
            door = wire.listen("coordinator", plan.coordinator, {}, ACTOR_LIMITS)
            done = subprocess.run(
                [sys.executable, "-I", "-c", program, str(folder)], capture_output=True, text=True
            )
            door.close()

    assert done.stdout.split() == ["refused"] * 4, done.stderr


def test_a_plan_is_made_with_fresh_keys_for_everybody_that_only_the_user_reads(
    run: Path, runtime: Path
) -> None:
    config = Config(actors=Actors(processes=2))
    keys = set()
    for _ in range(2):
        with private_folder(run) as folder:
            files = RunFiles(config=run / "config.json", private=folder)
            plan = make_plan(config, files)
            keys |= {member.key for member in plan.members}

            assert load_plan(files.plan) == plan
            for member in plan.members:
                file = keys_file(folder, member.name)
                assert file.stat().st_mode & 0o777 == 0o600
                assert own_keys(plan, member.name).public == member.key
    assert len(keys) == 2 * len(members(config))


def test_every_socket_of_a_run_fits_below_the_longest_folder_that_is_taken(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a Unix socket may have 107 bytes; vLLM names its own by a UUID."""
    runtime = TMP / ("y" * (_LONGEST - len("/tmp/")))
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    try:
        with private_folder(run) as folder:
            assert folder.parent == runtime
            for name in ("coordinator", "s0", str(uuid.uuid4())):
                with socket.socket(socket.AF_UNIX) as bound:
                    bound.bind(str(folder / name))
    finally:
        runtime.rmdir()
