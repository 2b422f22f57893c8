"""One run of ``lzero train``, whose processes are killed while it trains, or left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.records import has_trained, is_trained, progress_of
from benchmarks.chaos.turns import Kill, Turns
from benchmarks.report import REPOSITORY
from benchmarks.run_roles import MODULES, process_of

PRESET = REPOSITORY / "launch" / "presets" / "quickstart.toml"
STARTER = "starter"
"""The command itself: who is killed so is started again with ``--resume``, as a person would."""
LAST_STEPS = 6
"""So many before the end nobody is killed any more: all episodes may have been begun by then."""
_LOOK_S = 0.2

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: its exit status, and what it took."""

    status: int
    seconds: float


class ChaosRun:
    """A run in ``folder`` of ``steps`` steps; ``settings`` are for ``--set``."""

    def __init__(self, folder: Path, *, steps: int, settings: Sequence[str], log: Path) -> None:
        """Nothing is started yet; what the command prints goes into ``log``."""
        self.folder, self._steps, self._log = folder, steps, log
        given = (f"run.folder={folder.parent}", f"run.steps={steps}", *settings)
        self._command = [
            *(sys.executable, "-m", "launch.cli", "train", str(PRESET), "--name", folder.name),
            *(word for setting in given for word in ("--set", setting)),
        ]

    def undisturbed(self) -> Outcome:
        """Leave it alone until it ends."""
        began = time.monotonic()
        process = self._start("--keep-old")
        try:
            process.wait()
        finally:
            _end(process)
        return Outcome(status=process.returncode, seconds=time.monotonic() - began)

    def disturbed(self, *, seed: int, every_s: float, tell: Tell) -> tuple[Outcome, Turns]:
        """Kill somebody every ``every_s`` seconds, from the first step on; who was killed."""
        began, since = time.monotonic(), time.time()
        turns = Turns(seed=seed, every_s=every_s, began=since)
        process, has_begun = self._start("--keep-old"), False
        pause = threading.Event()
        try:
            while process.poll() is None:
                has_begun = has_begun or has_trained(self.folder, since=since)
                if has_begun:
                    process = self._turn(process, turns, tell)
                pause.wait(_LOOK_S)
        finally:
            _end(process)
        return Outcome(status=process.returncode, seconds=time.monotonic() - began), turns

    def _turn(
        self, process: "subprocess.Popen[bytes]", turns: Turns, tell: Tell
    ) -> "subprocess.Popen[bytes]":
        """See who works again, and kill whose turn it is; the command that runs then."""
        progress, now = progress_of(self.folder), time.time()
        for recovery in turns.look(progress, now=now):
            tell(f"{recovery.role} works again after {recovery.seconds:.1f} s")
        if is_trained(self.folder) or progress.step > self._steps - LAST_STEPS:
            return process
        found = {role: process_of(process.pid, modules) for role, modules in MODULES.items()}
        there = {role: one.pid for role, one in found.items() if one is not None}
        there[STARTER] = process.pid
        role = turns.next(there, now=now)
        if role is None:
            return process
        tell(f"step {progress.step}: SIGKILL to {role} (process {there[role]})")
        _kill(there[role])
        turns.killed(Kill(role=role, at=time.time(), step=progress.step))
        if role != STARTER:
            return process
        process.wait()
        return self._start("--resume")

    def _start(self, *more: str) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen([*self._command, *more], cwd=REPOSITORY, stdout=log, stderr=log)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Whatever happened: nothing of it is left."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
