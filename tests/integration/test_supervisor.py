"""The supervisor starts children in order, reports how one ended, and leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import RunError
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor

DEADLINE_S = 10.0


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", textwrap.dedent(code))


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def writes_pid(file: Path) -> str:
    """Code that leaves the process' id in ``file``, in one step."""
    whole, partial = str(file), f"{file}.partial"
    return f"open({partial!r}, 'w').write(str(os.getpid()))\nos.rename({partial!r}, {whole!r})"


def sleeper(pid_file: Path) -> tuple[str, ...]:
    return python(f"import os, time\n{writes_pid(pid_file)}\ntime.sleep(600)")


def stubborn_family(folder: Path) -> tuple[str, ...]:
    """A child that ignores SIGTERM, with a grandchild in another session that does so too."""
    code = "\n".join(
        [
            "import os, signal, time",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "if os.fork() == 0:",
            "    os.setsid()",
            "    if os.fork() == 0:",
            *("        " + line for line in writes_pid(folder / "orphan").splitlines()),
            "        time.sleep(600)",
            "    os._exit(0)",
            writes_pid(folder / "child"),
            "time.sleep(600)",
        ]
    )
    return (sys.executable, "-S", "-c", code)


def read_pids(folder: Path) -> list[int]:
    files = [folder / "child", folder / "orphan"]
    wait_until(lambda: all(file.exists() for file in files), "the start of the child's family")
    return [int(file.read_text()) for file in files]


def test_a_child_is_started_only_when_the_one_before_is_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = ProcessSpec(
        name="first",
        command=sleeper(ready),
        log=tmp_path / "first.log",
        is_ready=ready.exists,
    )
    second = ProcessSpec(
        name="second",
        command=python(f"import os, sys; sys.exit(0 if os.path.exists({str(ready)!r}) else 3)"),
        log=tmp_path / "second.log",
    )

    with Supervisor() as supervisor:
        supervisor.start(first)
        supervisor.spawn(second)
        supervisor.finish("second")
        pid = int(ready.read_text())
        assert is_alive(pid)

    assert not is_alive(pid)


def test_a_crash_is_reported_with_name_exit_code_and_last_lines(tmp_path: Path) -> None:
    crash = ProcessSpec(
        name="learner",
        command=python("import sys; print('first words'); print('last words'); sys.exit(7)"),
        log=tmp_path / "learner.log",
        hint=lambda: "go on with: lzero train x.toml --resume",
    )

    with Supervisor() as supervisor:
        supervisor.spawn(crash)
        with pytest.raises(RunError, match=r"learner ended with exit code 7 unexpected") as caught:
            supervisor.finish("learner")

    assert "| last words" in str(caught.value)
    assert "--resume" in str(caught.value)


def test_a_crash_of_another_child_ends_the_wait(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with Supervisor() as supervisor:
        supervisor.start(
            ProcessSpec(
                name="server",
                command=sleeper(pid_file),
                log=tmp_path / "server.log",
                is_ready=pid_file.exists,
            )
        )
        supervisor.spawn(
            ProcessSpec(name="work", command=sleeper(tmp_path / "w"), log=tmp_path / "work.log")
        )
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        with pytest.raises(RunError, match=r"server was ended by signal 9 \(SIGKILL\)"):
            supervisor.finish("work")


def test_a_child_that_never_gets_ready_is_named(tmp_path: Path) -> None:
    slow = ProcessSpec(
        name="server",
        command=sleeper(tmp_path / "pid"),
        log=tmp_path / "server.log",
        is_ready=lambda: False,
        ready_timeout_s=0.3,
    )

    with Supervisor() as supervisor, pytest.raises(RunError, match=r"server was not ready after"):
        supervisor.start(slow)


def test_a_child_that_does_not_end_in_time_is_named(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        supervisor.spawn(
            ProcessSpec(name="actor", command=sleeper(tmp_path / "p"), log=tmp_path / "actor.log")
        )
        with pytest.raises(RunError, match=r"actor did not end within 0 s"):
            supervisor.finish("actor", timeout_s=0.2)


def test_stopping_ends_a_stubborn_child_and_its_orphans(tmp_path: Path) -> None:
    with Supervisor(grace_s=0.3) as supervisor:
        supervisor.spawn(
            ProcessSpec(name="child", command=stubborn_family(tmp_path), log=tmp_path / "log")
        )
        pids = read_pids(tmp_path)

    assert not any(is_alive(pid) for pid in pids)


def test_orphans_of_a_child_that_ended_do_not_stay(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        supervisor.spawn(
            ProcessSpec(name="child", command=stubborn_family(tmp_path), log=tmp_path / "log")
        )
        child, orphan = read_pids(tmp_path)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(RunError, match=r"SIGKILL"):
            supervisor.finish("child")

    assert not is_alive(orphan)


SUPERVISING = """
import sys
from pathlib import Path
from launch.starters.child import ProcessSpec
from launch.starters.local import Interrupted, Supervisor, interruptible

folder = Path(sys.argv[1])
command = tuple(sys.argv[2:])
try:
    with interruptible(), Supervisor(grace_s=0.5) as supervisor:
        spec = ProcessSpec(name="child", command=command, log=folder / "log")
        supervisor.spawn(spec)
        supervisor.finish("child")
except Interrupted as interrupted:
    sys.exit(f"interrupted by {interrupted}")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_supervisor_that_is_signalled(
    tmp_path: Path, number: signal.Signals
) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(tmp_path), *stubborn_family(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = read_pids(tmp_path)

    supervisor.send_signal(number)
    _, errors = supervisor.communicate(timeout=DEADLINE_S)

    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the end of the child's family")
    if number is not signal.SIGKILL:
        assert f"interrupted by {number.name}" in errors
        assert supervisor.returncode == 1


def test_a_second_signal_does_not_cut_the_end_of_the_children_short(tmp_path: Path) -> None:
    code = f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, lambda *_: open({str(tmp_path / "told")!r}, "w").close())
        open({str(tmp_path / "partial")!r}, "w").write(str(os.getpid()))
        os.rename({str(tmp_path / "partial")!r}, {str(tmp_path / "child")!r})
        while True:
            time.sleep(600)
    """
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(tmp_path), *python(code)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "child").exists, "the start of the child")

    supervisor.send_signal(signal.SIGTERM)
    wait_until((tmp_path / "told").exists, "the end of the child's time in peace")
    supervisor.send_signal(signal.SIGINT)
    _, errors = supervisor.communicate(timeout=DEADLINE_S)

    assert not is_alive(int((tmp_path / "child").read_text()))
    assert "interrupted by SIGINT" in errors


IN_ORDER = """
import sys
from pathlib import Path
from launch.starters.child import ProcessSpec
from launch.starters.local import StopAsked, Supervisor, interruptible

folder = Path(sys.argv[1])
command = tuple(sys.argv[2:])
try:
    with interruptible(), Supervisor(grace_s=0.5) as supervisor:
        spec = ProcessSpec(name="child", command=command, log=folder / "log", order_s=600)
        supervisor.spawn(spec)
        try:
            supervisor.finish("child")
        except StopAsked as asked:
            print(asked, flush=True)
            print(supervisor.end_in_order("child"), flush=True)
            raise
except StopAsked:
    sys.exit(75)
"""


def in_order(folder: Path, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", IN_ORDER, str(folder), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_child_that_can_end_in_order_is_given_time_to(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = f"""
        import os, signal, sys, time
        def end(*_):
            open({str(tmp_path / "saved")!r}, "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        open({str(tmp_path / "ready")!r}, "w").close()
        time.sleep(600)
    """
    supervisor = in_order(tmp_path, *python(code))
    wait_until((tmp_path / "ready").exists, "the start of the child")

    supervisor.send_signal(number)
    output, _ = supervisor.communicate(timeout=DEADLINE_S)

    assert output.split() == [number.name, "True"]
    assert (tmp_path / "saved").exists()
    assert supervisor.returncode == 75


@pytest.mark.parametrize(("second", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 1)])
def test_a_second_signal_ends_at_once_what_was_to_end_in_order(
    tmp_path: Path, second: signal.Signals, status: int
) -> None:
    with in_order(tmp_path, *stubborn_family(tmp_path)) as supervisor:
        pids = read_pids(tmp_path)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "SIGTERM\n"

        def ended() -> bool:
            if is_alive(pids[0]):
                supervisor.send_signal(second)  # the echo of the first is no second one
            return supervisor.poll() is not None

        wait_until(ended, "the end of the supervisor")

    assert supervisor.returncode == status
    assert not any(is_alive(pid) for pid in pids)


def counting(folder: Path, *, lives: int) -> tuple[str, ...]:
    """A child that writes its id and sleeps, and in its life after ``lives`` ends with 0."""
    code = f"""
        import os, time
        lives = {str(folder / "lives")!r}
        number = len(open(lives).read()) if os.path.exists(lives) else 0
        open(lives, "a").write("x")
        if number == {lives}:
            raise SystemExit(0)
        open({str(folder / "partial")!r}, "w").write(str(os.getpid()))
        os.rename({str(folder / "partial")!r}, {str(folder)!r} + f"/pid{{number}}")
        time.sleep(600)
    """
    return python(code)


def test_a_child_that_is_killed_is_started_again_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    told: list[str] = []
    killed: set[Path] = set()

    def kill() -> None:
        for file in set(tmp_path.glob("pid*")) - killed:
            killed.add(file)
            os.kill(int(file.read_text()), signal.SIGKILL)

    spec = ProcessSpec(
        name="actor", command=counting(tmp_path, lives=3), log=tmp_path / "log", is_restarted=True
    )
    with Supervisor(tick=kill, tell=told.append) as supervisor:
        supervisor.spawn(spec)
        supervisor.finish("actor", timeout_s=DEADLINE_S)

    assert len(killed) == 3
    assert [text.partition(" (restart ")[2] for text in told] == [
        f"{number} of at most 6 in an hour)" for number in (1, 2, 3)
    ]
    assert told[0].startswith("actor was ended by signal 9 (SIGKILL) unexpectedly, see ")


def test_a_child_that_ends_ever_again_is_given_up_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.LONGEST_S", 0.01)
    spec = ProcessSpec(
        name="actor", command=python("print('so it is'); raise SystemExit(3)"),
        log=tmp_path / "log", is_restarted=True,
    )  # fmt: skip
    with Supervisor() as supervisor:
        supervisor.spawn(spec)
        with pytest.raises(RunError, match=r"code 3 unexpectedly after 6 restarts.*") as caught:
            supervisor.finish("actor", timeout_s=DEADLINE_S)

    assert "| so it is" in str(caught.value)


def test_a_child_that_never_worked_ends_the_run_at_once(tmp_path: Path) -> None:
    spec = ProcessSpec(
        name="actor", command=python("raise SystemExit('no sandbox here')"), log=tmp_path / "log",
        is_restarted=True, has_worked=lambda: False,
    )  # fmt: skip
    told: list[str] = []
    with Supervisor(tell=told.append) as supervisor:
        supervisor.spawn(spec)
        with pytest.raises(RunError, match=r"code 1 unexpectedly; .*\n.*no sandbox here"):
            supervisor.finish("actor", timeout_s=DEADLINE_S)
    assert not told


def test_what_waits_to_be_started_again_is_forgotten_when_restarts_are_over(
    tmp_path: Path,
) -> None:
    spec = ProcessSpec(
        name="actor", command=python("raise SystemExit(3)"), log=tmp_path / "log",
        is_restarted=True,
    )  # fmt: skip
    told: list[str] = []
    with Supervisor(tell=told.append) as supervisor:
        supervisor.spawn(spec)

        def is_said() -> bool:
            supervisor.check()
            return bool(told)

        wait_until(is_said, "the end of the child")
        supervisor.end_restarts()
        supervisor.finish("actor", timeout_s=DEADLINE_S)
    assert len(told) == 1


def test_a_child_that_would_only_end_again_ends_the_run_at_once(tmp_path: Path) -> None:
    spec = ProcessSpec(
        name="learner", command=python("raise SystemExit('numbers are broken')"),
        log=tmp_path / "log", is_restarted=True, would_end_again=lambda: True,
    )  # fmt: skip
    told: list[str] = []
    with Supervisor(tell=told.append) as supervisor:
        supervisor.spawn(spec)
        with pytest.raises(RunError, match=r"code 1 unexpectedly; .*\n.*numbers are broken"):
            supervisor.finish("learner", timeout_s=DEADLINE_S)
    assert not told


def test_a_child_is_said_to_have_ended_of_what_it_named_and_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    word = tmp_path / "word"
    code = f"""
        import os
        word, again = {str(word)!r}, {str(tmp_path / "again")!r}
        if os.path.exists(word):
            raise SystemExit("begin was not called")
        if os.path.exists(again):
            raise SystemExit(0)
        open(again, "w").close()
        open(word, "w").write("a collective hung")
        raise SystemExit(2)
    """
    spec = ProcessSpec(
        name="learner", command=python(code), log=tmp_path / "log", is_restarted=True,
        begin=lambda: word.unlink(missing_ok=True), cause=word.read_text,
    )  # fmt: skip
    told: list[str] = []
    with Supervisor(tell=told.append) as supervisor:
        supervisor.spawn(spec)
        supervisor.finish("learner", timeout_s=DEADLINE_S)

    (text,) = told
    assert text.startswith("learner ended with exit code 2 unexpectedly (a collective hung), see ")


def test_a_child_that_somebody_kills_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    first, second = tmp_path / "pid0", tmp_path / "pid1"

    def is_ready() -> bool:
        if first.exists() and not second.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(first.read_text()), signal.SIGKILL)
        return second.exists()

    spec = ProcessSpec(
        name="learner", command=counting(tmp_path, lives=9), log=tmp_path / "log",
        is_restarted=True, is_ready=is_ready, ready_timeout_s=DEADLINE_S,
    )  # fmt: skip
    told: list[str] = []
    with Supervisor(tell=told.append) as supervisor:
        supervisor.start(spec)
    assert len(told) == 1


def test_who_was_told_to_end_by_one_that_comes_back_comes_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learner that sent its actors away, and is killed before it has ended."""
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    folders = [tmp_path / name for name in ("learner", "actor")]
    for folder in folders:
        folder.mkdir()
    learner, actor = (
        ProcessSpec(
            name=folder.name, command=counting(folder, lives=lives), log=folder / "log",
            is_restarted=True,
        )
        for folder, lives in zip(folders, (1, 0), strict=True)
    )  # fmt: skip

    def kill_once_the_actor_is_gone() -> None:
        pid, lives = folders[0] / "pid0", folders[1] / "lives"
        if pid.exists() and lives.exists() and supervisor._status("actor") == 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)

    with Supervisor(tick=kill_once_the_actor_is_gone) as supervisor:
        supervisor.spawn(learner)
        supervisor.spawn(actor)
        supervisor.finish("learner", ending=["actor"], timeout_s=DEADLINE_S)
        wait_until((folders[1] / "pid1").exists, "the second life of the actor")


def test_who_does_not_leave_by_himself_is_asked_to(tmp_path: Path) -> None:
    with Supervisor(grace_s=0.3) as supervisor:
        for name in ("slow", "quick"):
            command = sleeper(tmp_path / name) if name == "slow" else python("")
            supervisor.spawn(
                ProcessSpec(name=name, command=command, log=tmp_path / "log", order_s=5)
            )
        wait_until((tmp_path / "slow").exists, "the start of the child")
        supervisor.see_off("slow", "quick", patience_s=0.2)
        assert not is_alive(int((tmp_path / "slow").read_text()))


def test_children_that_are_started_together_do_not_wait_for_each_other(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    specs = [
        ProcessSpec(
            name=mine.name, command=sleeper(mine), log=tmp_path / "log", is_ready=other.exists,
            ready_timeout_s=DEADLINE_S,
        )
        for mine, other in (files, files[::-1])
    ]  # fmt: skip

    with Supervisor() as supervisor:
        supervisor.start(*specs)

        assert all(is_alive(int(file.read_text())) for file in files)


def test_one_of_several_is_given_up_without_harm_and_the_last_one_ends_the_run(
    tmp_path: Path,
) -> None:
    told: list[str] = []

    def spec(name: str, kind: str) -> ProcessSpec:
        return ProcessSpec(
            name=name, command=sleeper(tmp_path / name), log=tmp_path / "log", kind=kind,
            is_ready=(tmp_path / name).exists,
        )  # fmt: skip

    def kill(name: str) -> None:
        os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)

    with Supervisor(tell=told.append) as supervisor:
        supervisor.start(spec("s0", "server"), spec("s1", "server"), spec("a0", "actor"))
        kill("s0")
        supervisor.finish("s0", timeout_s=DEADLINE_S)
        kill("s1")
        with pytest.raises(RunError, match=r"s1 was ended by signal 9 \(SIGKILL\) unexpectedly"):
            supervisor.finish("s1", timeout_s=DEADLINE_S)

    assert [text.partition(" was ended")[0] for text in told] == ["s0"]
    assert told[0].endswith("; it is not started again, others like it go on")
