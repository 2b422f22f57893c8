"""Plays a schedule of faults on a run of real processes, and sees to it that nothing is left.

The run trains no further than the next fault's moment until that has been played, and a fault is
played as soon as its moment is seen, while episodes are under way.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process_tree import Process, descendants
from benchmarks.run_roles import MODULES, command_line, process_of
from common.whole_file import write_whole
from tests.faults import disk
from tests.faults.books import check_books, steps_of, stored
from tests.faults.relay import Relay
from tests.faults.schedules import Fault, Role, Schedule
from tests.faults.settings import ALERTS, save_settings, settings_of

REPOSITORY = Path(__file__).parents[2]
PROCESSES: dict[Role, tuple[str, ...]] = {
    "actor": (*MODULES["actor"], "tests.faults.actor"),
    "kernels": MODULES["kernels"],
    "judge": ("actors.rewards.judge.worker",),
    "server": (*MODULES["server"], "tests.integration.scripted_server"),
    "learner": (*MODULES["learner"], "tests.faults.learner"),
}
DEADLINE_S = 90.0
GONE_S = 10.0
_LOOK_S = 0.02
_LOOK_AROUND_S = 0.2


@dataclass(frozen=True)
class Recovery:
    """How long it took until an episode that was begun after a fault was in."""

    role: Role
    kind: str
    seconds: float


@dataclass
class Played:
    """What came of a schedule."""

    recoveries: list[Recovery] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Faults that this machine does not allow, by name."""


class Rig:
    """A run in ``folder``."""

    def __init__(self, folder: Path, schedule: Schedule, doors: Path, *, own_disk: bool) -> None:
        self._folder, self._schedule, self._doors = folder, schedule, doors
        self.own_disk = own_disk
        self.settings = settings_of(schedule, doors)
        save_settings(self.settings, folder)
        self.settings.gate.write_text("0")
        self.relays = {
            name: Relay(doors / name, lambda name=name: self.private() / name)
            for name in ("coordinator", "s0")
        }
        self.seen: set[Process] = set()
        self._looked = 0.0
        self._places: set[Path] = set()
        """Private folders that there have been."""
        self.played = Played()
        self.starter = self._start()

    def play(self) -> Played:
        """All faults, then to the end."""
        for moment in self._schedule.moments():
            after = moment[0].after
            self._open_gate(after)
            self._wait_for(lambda at=after: steps_of(self._folder) >= at, f"step {after}")
            for fault in moment:
                self._wait_for(lambda one=fault: self._is_there(one), f"somebody for {fault}")
            self._remember()
            self._do(moment)
        self._open_gate(self._schedule.steps)
        self._wait_for(self._is_over, "the end")
        return self.played

    # ---- faults ------------------------------------------------------------------------------

    def _do(self, moment: tuple[Fault, ...]) -> None:
        """Those that last go on while the others happen; then until all work again.

        So far may be trained meanwhile that something is left to begin (``Schedule.apart``).
        """
        after = moment[0].after
        with ExitStack() as lasting:
            done = [fault for fault in moment if self._begin(fault, lasting)]
            self._open_gate(after + 1)
            self._pass(max(fault.seconds for fault in moment))
        at = time.time()
        self._open_gate(after + self._schedule.apart)
        self._wait_for(lambda: self._has_begun_since(at), f"an episode begun after {moment}")
        if len(done) == len(moment) == 1:
            recovery = Recovery(moment[0].role, moment[0].kind, time.time() - at)
            self.played.recoveries.append(recovery)

    def _begin(self, fault: Fault, lasting: ExitStack) -> bool:
        """Whether it could be done."""
        match fault.role, fault.kind:
            case "starter", "kill":
                self._start_again()
            case _, "kill":
                os.kill(self._pid(fault.role), signal.SIGKILL)
            case _, "pause":
                pid = self._pid(fault.role)
                os.kill(pid, signal.SIGSTOP)
                lasting.callback(self._go_on, pid)
            case "disk", "full":
                if not self.own_disk:
                    self.played.skipped.append(str(fault))
                    return False
                lasting.callback(disk.make_room, self._folder)
                disk.fill(self._folder)
            case "disk", "slow":
                self.settings.slow.touch()
                lasting.callback(self.settings.slow.unlink)
            case _, "cut":
                self._relay(fault).cut()
            case _, "delay":
                self._relay(fault).hold_up()
                lasting.callback(self._relay(fault).let_go)
            case _, "replay":
                assert self._relay(fault).replay(), "a connection of old bytes was let in"
        return True

    def _start_again(self) -> None:
        self.starter.kill()
        self.starter.wait()
        self._check_gone()
        self.starter = self._start()

    def _go_on(self, pid: int) -> None:
        if any(process.pid == pid and process.alive for process in self.seen):
            os.kill(pid, signal.SIGCONT)

    def _relay(self, fault: Fault) -> Relay:
        return self.relays["coordinator" if fault.role == "actor" else "s0"]

    # ---- what is seen ------------------------------------------------------------------------

    def _is_there(self, fault: Fault) -> bool:
        match fault.role, fault.kind:
            case ("disk" | "starter", _):
                return True
            case _, ("kill" | "pause"):
                return self._process(fault.role) is not None
        return self._relay(fault).opened > 0

    def _process(self, role: Role) -> Process | None:
        return process_of(self.starter.pid, PROCESSES[role])

    def _pid(self, role: Role) -> int:
        if role == "starter":
            return self.starter.pid
        process = self._process(role)
        assert process is not None, f"no process of {role} any more"
        return process.pid

    def _has_begun_since(self, at: float) -> bool:
        self._look_around()
        return any(line["started_at"] > at for line in stored(self._folder, last=16))

    def _is_over(self) -> bool:
        self._look_around()
        return self.starter.poll() is not None

    # ---- the means ---------------------------------------------------------------------------

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.faults.starter", str(self._folder)]
        with (self._doors / "starter.out").open("ab") as out:
            started = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=out)
        self.seen.update(p for p in descendants(os.getpid()) if p.pid == started.pid)
        return started

    def _open_gate(self, steps: int) -> None:
        write_whole(self.settings.gate, str(steps))

    def _pass(self, seconds: float) -> None:
        """So long."""
        over = time.monotonic() + seconds
        self._wait_for(lambda: time.monotonic() >= over, f"{seconds} s")

    def _wait_for(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while not holds():
            if (ended := self.starter.poll()) is not None:
                assert holds(), f"the starter ended with {ended} before {what}"
                return
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
            pause.wait(_LOOK_S)

    def end(self) -> None:
        """Whatever happened."""
        self._remember()
        self.starter.kill()
        self.starter.wait()

    def private(self) -> Path:
        """Where sockets and keys are, now."""
        return (self._folder / "private").readlink()

    def _look_around(self) -> None:
        """Now and then: it takes its time."""
        if time.monotonic() - self._looked >= _LOOK_AROUND_S:
            self._remember()

    def _remember(self) -> None:
        self._looked = time.monotonic()
        self.seen |= set(descendants(self.starter.pid))
        if (self._folder / "private").is_symlink():
            self._places.add(self.private())

    def _check_gone(self) -> None:
        """All processes that there ever were; waits a little for those of a starter just killed."""
        deadline = time.monotonic() + GONE_S
        while (left := [p for p in self.seen if p.alive]) and time.monotonic() < deadline:
            threading.Event().wait(_LOOK_S)
        assert not left, f"processes left: {[(p, command_line(p.pid)) for p in left]}"

    def check_nothing_is_left(self) -> None:
        """No process, no private folder, no link to one, no socket."""
        assert self.starter.returncode == 0, self.said()
        self._check_gone()
        assert not (self._folder / "private").is_symlink()
        assert not [place for place in self._places if place.exists()]

    def said(self) -> str:
        """The ends of all logs, and what a person was told."""
        logs = [*sorted(self._folder.glob("*.log")), self._doors / "starter.out"]
        told = self._doors / ALERTS
        return "\n".join(
            f"==== {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-15:])
            for file in (*logs, told)
            if file.exists()
        )


@contextmanager
def a_rig(folder: Path, schedule: Schedule) -> Iterator[Rig]:
    """A run with its relays; everything of it is ended at the end."""
    folder.mkdir()
    with ExitStack() as stack:
        doors = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        own_disk = schedule.has("full") and stack.enter_context(disk.mounted(folder))
        rig = Rig(folder, schedule, doors, own_disk=own_disk)
        stack.callback(rig.end)
        for relay in rig.relays.values():
            stack.enter_context(relay.running())
        yield rig


def play(folder: Path, schedule: Schedule) -> Played:
    """Play a schedule on a fresh run, and check all that has to hold."""
    with a_rig(folder, schedule) as rig:
        try:
            played = rig.play()
            rig.check_nothing_is_left()
            was_full = rig.own_disk and schedule.has("full")
            check_books(folder, rig.settings, whole_journal=not was_full)
        except BaseException as error:
            error.add_note(f"LZERO_FAULTS_SEED={schedule.seed} {schedule}\n{rig.said()}")
            raise
    return played
