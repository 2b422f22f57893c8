"""Whole runs whose servers, learner and actors are killed, or come later, lose nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_end_to_end import REPOSITORY, Command, lzero_train

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]


def kill(command: Command, words: str) -> None:
    """SIGKILL the process with these words in its command line that is no guard."""
    (pid,) = (
        p for p, line in command.processes().items() if words in line and "guard.py" not in line
    )
    os.kill(pid, signal.SIGKILL)


def steps_of(command: Command) -> int:
    metrics = command.run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.mark.parametrize(("servers", "victim"), [(1, "s0"), (2, "s1")])
def test_a_run_goes_on_when_its_server_its_learner_and_its_actor_are_killed(
    tmp_path: Path, servers: int, victim: str
) -> None:
    settings = ("run.steps=8", "transport.silence_s=10", f"policy_server.count={servers}")
    with lzero_train(tmp_path, *(word for text in settings for word in ("--set", text))) as command:
        command.wait_until(lambda: steps_of(command) >= 2, "the second step")
        kill(command, f"--name {victim}")
        command.wait_until(lambda: steps_of(command) >= 4, "steps after the server was killed")
        kill(command, "-m learner.main")
        command.wait_until(lambda: steps_of(command) >= 6, "steps after the learner was killed")
        kill(command, "-m actors.main")
        printed = command.finish()

    assert command.process.returncode == 0, printed
    summary = json.loads((command.run / "summary.json").read_text())
    named = sorted(text.partition(" was ended by signal 9")[0] for text in summary["restarts"])
    assert named == ["actor-a0", "learner", f"policy-server-{victim}"]
    assert summary["policy_server"]["servers"] == servers
    assert summary["learner"]["steps"] == 8
    counts = summary["trajectories"]
    assert counts["started"] == counts["trained"] + sum(counts["dropped"].values()) + counts["open"]
    batches = (command.run / "batches.jsonl").read_text().splitlines()
    assert len(batches) == 8


def test_a_run_without_actors_of_its_own_waits_for_one_that_joins(tmp_path: Path) -> None:
    settings = ("run.steps=2", "actors.processes=0", "evaluation.during_every=0")
    with lzero_train(tmp_path, *(word for text in settings for word in ("--set", text))) as command:
        file = command.run / "join.json"
        command.wait_until(file.exists, "the learner listens")
        join = [sys.executable, "-m", "launch.cli", "join", str(file), "--role", "actor"]
        with subprocess.Popen(join, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as actor:
            printed = command.finish()
            said, _ = actor.communicate(timeout=60)

    assert command.process.returncode == 0, printed
    assert (actor.returncode, said) == (0, "joined the run as a0\na0 has left the run\n")
    assert not file.exists()
    counts = json.loads((command.run / "summary.json").read_text())["trajectories"]
    assert counts["started"] == counts["trained"] + sum(counts["dropped"].values()) + counts["open"]
