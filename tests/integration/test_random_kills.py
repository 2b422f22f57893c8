"""A quickstart whose processes are killed at random moments finishes by itself and loses nothing.

``LZERO_KILLS_SEED`` repeats the moments that a failure names; without it they are others each time.
"""

import json
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.run_roles import MODULES, process_of
from learner.coordination.changes import Accepted, Taken, from_record
from learner.journal.segments import read_place, recover
from tests.integration.test_end_to_end import Command, lzero_train

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

SEED = int(os.environ.get("LZERO_KILLS_SEED", time.time_ns() % 1_000_000))
STEPS, GROUPS, GROUP_SIZE = 16, 8, 8
QUICKSTART = (
    f"run.steps={STEPS}",
    "run.keep_journal=true",
    "world.train_tasks=2000",
    f"learner.groups={GROUPS}",
    f"learner.group_size={GROUP_SIZE}",
    "learner.checkpoint_every=5",
    "actors.episodes=64",
    "agent.max_steps=5",
    "evaluation.per_family=2",
    "evaluation.during_every=6",
    "transport.silence_s=10",
)
NAMES = {"actor": "actor-a0", "server": "policy-server-s0", "learner": "learner"}
"""In the summary's ``restarts``; that vLLM was started again its own host says, in its log."""


def working(command: Command, role: str) -> int | None:
    """The one that works; None while it is being started again.

    vLLM works when its host has said so: one that is killed before it has started cannot start,
    and that ends a host, or with the first one the run.
    """
    found = process_of(command.process.pid, MODULES["engine" if role == "vllm" else role])
    if found is None:
        return None
    if role == "vllm" and not samples(command, since=started_at(found.pid)):
        return None
    return found.pid


def samples(command: Command, *, since: float) -> bool:
    """Whether the host of the policy server has said since then that its vLLM samples."""
    ready = command.run / "private" / "s0.ready"
    return ready.exists() and since < ready.stat().st_mtime


def started_at(pid: int) -> float:
    """Seconds since 1970, from which on the process is there; it may have ended by now."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return math.inf


def steps_of(command: Command) -> int:
    metrics = command.run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def kill_at(command: Command, role: str, step: int, delay_s: float) -> None:
    """SIGKILL a role's process so long after a step, as soon as there is one."""
    command.wait_until(lambda: steps_of(command) >= step, f"step {step}")
    due = time.monotonic() + delay_s
    command.wait_until(lambda: time.monotonic() >= due, f"{delay_s:.1f} s after step {step}")
    command.wait_until(lambda: working(command, role) is not None, f"a process of {role}")
    pid = working(command, role)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@contextmanager
def quickstart(folder: Path, *more: str) -> Iterator[Command]:
    words = [word for setting in QUICKSTART for word in ("--set", setting)]
    with lzero_train(folder, *words, *more) as command:
        yield command


@pytest.mark.parametrize(
    "roles",
    [["actor"], ["server"], ["vllm"], ["learner"], ["actor", "server", "vllm", "learner"]],
    ids="-".join,
)
def test_a_run_whose_processes_are_killed_at_random_moments_loses_nothing(
    roles: list[str], tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED} {roles}")
    moments = sorted((chance.randrange(STEPS - 3), chance.uniform(0.0, 4.0), r) for r in roles)
    print(f"LZERO_KILLS_SEED={SEED}", moments)

    with quickstart(tmp_path) as command:
        for step, delay_s, role in moments:
            kill_at(command, role, step, delay_s)
        printed = command.finish()

    assert command.process.returncode == 0, printed
    assert command.processes() == {}
    summary = json.loads((command.run / "summary.json").read_text())
    named = [text.partition(" was ended by signal 9")[0] for text in summary["restarts"]]
    assert sorted(named) == sorted(NAMES[role] for role in roles if role in NAMES)
    check_books(summary, command.run)


def check_books(summary: dict[str, object], run: Path) -> None:
    """Every step is there once, and every trajectory has one end."""
    counts = summary["trajectories"]
    assert isinstance(counts, dict)
    assert counts["trained"] == STEPS * GROUPS * GROUP_SIZE
    assert counts["started"] == counts["trained"] + sum(counts["dropped"].values()) + counts["open"]
    rows = [json.loads(line) for line in (run / "batches.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    trained = [name for row in rows for name in row["trajectories"]]
    assert len({name.rpartition("-")[0] for name in trained}) == len(trained), "a member twice"

    changes = [from_record(read_place(p)) for p in recover(run / "journal", since=0).places]
    accepted = [c.trajectory.trajectory_id for c in changes if isinstance(c, Accepted)]
    taken = [name for c in changes if isinstance(c, Taken) for name in c.trajectories]
    assert len(set(accepted)) == len(accepted)
    assert sorted(taken) == sorted(trained)
    assert set(taken) <= set(accepted)
