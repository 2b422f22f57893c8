"""A quickstart with a real vLLM whose processes are killed and stopped loses and doubles nothing.

Each seed is a schedule of faults (``tests.faults.schedules.real_faults``); ``LZERO_FAULTS_SEED``
plays that of one seed alone. What is cheap to play often is in ``test_fault_suite.py``.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.chaos.records import progress_of
from benchmarks.process_tree import Process, descendants
from benchmarks.run_roles import MODULES, process_of
from tests.faults.disk import fill, make_room, mounted
from tests.faults.schedules import Fault, real_faults
from tests.integration.test_end_to_end import STOP_S, Command
from tests.integration.test_random_kills import STEPS, check_books, quickstart, steps_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

ONE = os.environ.get("LZERO_FAULTS_SEED")
LONGEST_S = 15.0
"""Longer than ``transport.silence_s`` of these runs."""


class Played:
    """A run, begun again where its starter is killed, and all processes that it ever had."""

    def __init__(self, begin: Callable[..., Command]) -> None:
        self._begin = begin
        self.command = begin()
        self.seen: set[Process] = set()
        self._last = 0.0

    def play(self, fault: Fault) -> None:
        """Do it as soon as its step has been trained and all work again after the last one.

        A vLLM that is killed before it works ends its host, and with the first one the run.
        """
        self.command.wait_until(lambda: steps_of(self.command) >= fault.after, str(fault))
        self.command.wait_until(self._all_work, f"an episode since the fault before {fault}")
        self.command.wait_until(lambda: self._pid(fault) is not None, f"somebody for {fault}")
        self.seen |= set(descendants(self.command.process.pid))
        pid = self._pid(fault)
        assert pid is not None, f"gone at the moment of {fault}"
        if fault.kind == "pause":
            self._pause(pid, fault.seconds)
        else:
            os.kill(pid, signal.SIGKILL)
        if (fault.role, fault.kind) == ("starter", "kill"):
            self.command.finish()
            self.check_all_gone()
            self.command = self._begin("--resume")
        self._last = time.time()

    def _all_work(self) -> bool:
        return progress_of(self.command.run).begun_at > self._last

    def _pid(self, fault: Fault) -> int | None:
        if fault.role == "starter":
            return self.command.process.pid
        found = process_of(self.command.process.pid, MODULES[fault.role])
        return None if found is None else found.pid

    def _pause(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            threading.Event().wait(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def check_all_gone(self) -> None:
        wait_for(lambda: not any(p.alive for p in self.seen), timeout_s=2 * STOP_S)


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(6))
def test_a_real_run_loses_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    faults = real_faults(seed, steps=STEPS, longest_s=LONGEST_S)
    print(f"LZERO_FAULTS_SEED={seed}", *faults, sep="\n")

    with ExitStack() as stack:
        played = Played(lambda *more: stack.enter_context(quickstart(tmp_path, *more)))
        for fault in faults:
            played.play(fault)
        printed = played.command.finish()

    assert played.command.process.returncode == 0, printed
    assert played.command.processes() == {}
    played.check_all_gone()
    assert not (played.command.run / "private").is_symlink()
    summary = json.loads((played.command.run / "summary.json").read_text())
    check_books(summary, played.command.run)


def test_a_real_run_goes_on_once_there_is_room_on_its_disk_again(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, size="512m") as own_disk:
        if not own_disk:
            pytest.skip("no disk of its own may be mounted here")
        with quickstart(folder) as command:
            command.wait_until(lambda: steps_of(command) >= 3, "the third step")
            before = process_of(command.process.pid, MODULES["learner"])
            actor = process_of(command.process.pid, MODULES["actor"])
            assert before is not None
            assert actor is not None
            fill(folder)
            os.kill(actor.pid, signal.SIGKILL)
            command.wait_until(lambda: not before.alive, "a learner that cannot write its records")
            make_room(folder)
            printed = command.finish()

        assert command.process.returncode == 0, printed
        summary = json.loads((command.run / "summary.json").read_text())
        rows = [json.loads(line) for line in (command.run / "batches.jsonl").open()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    counts = summary["trajectories"]
    assert counts["trained"] == sum(len(row["trajectories"]) for row in rows)
    assert counts["started"] == counts["trained"] + sum(counts["dropped"].values()) + counts["open"]
