"""A learner that is killed comes back by itself, and ends where one that was not killed does.

Starter, torchrun, journal, checkpoints and wire are the real ones, and each life of the learner is
a process; the policy plays a script.
"""

import asyncio
import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.link import CoordinatorLink
from actors.runner import run_leases
from common.config import Config
from common.places import LEARNER, RunPlan
from common.plan_file import own_keys, told_coordinator
from common.wire.records import TaskLease, Trajectory
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles, rank_environment, rank_processes
from launch.starters import specs
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor
from launch.starters.private import make_plan, private_folder
from learner.coordination.changes import Accepted, Taken, from_record
from learner.journal.segments import read_place, recover
from tests.integration.learner_life import Life, with_steps
from tests.integration.mortal_learner import EVERY, STEPS, VERSION
from tests.integration.test_synchronous_training import scripted
from tests.makers import make_totals
from tests.tiny_policy import make_model

BATCH = 6
MODULE = "tests.integration.mortal_learner"
TWICE = (("publish", 2, "self"), ("saved", 3, "self"))
"""With two steps trained and no checkpoint; while the first checkpoint is written."""


class Scripted:
    """In place of an episode runner: the scripted policy, of the version that the servers have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun: list[str] = []

    async def run(self, lease: TaskLease) -> Trajectory:
        self.begun.append(lease.lease_id)
        return scripted(lease, int((self.folder / VERSION).read_text()))


@contextmanager
def an_actor(plan: RunPlan, runner: Scripted) -> Iterator[threading.Thread]:
    """Works until it is drained, whoever is at the other end meanwhile."""
    address = told_coordinator(plan)
    assert address is not None

    async def act() -> None:
        with Wire(own_keys(plan, "a0")) as wire:
            link = CoordinatorLink(
                wire, address, actor_id="a0", credit=50, kernel_level="none",
                heartbeat_s=0.05, resend_s=0.2, patience_s=600.0,
            )  # fmt: skip
            try:
                await run_leases(link, runner, make_totals)  # type: ignore[arg-type]
            finally:
                link.close()

    actor = threading.Thread(target=lambda: asyncio.run(act()))
    actor.start()
    yield actor
    actor.join(timeout=60)
    assert not actor.is_alive()


def learner(plan: RunPlan, folder: Path, *, ranks: int, by_torchrun: int) -> ProcessSpec:
    """As the starter has it, but for what its ranks run, and how often torchrun does it again."""
    options = ("--plan", f"{plan.private}/plan.json", "--folder", str(folder))
    private = Path(plan.private)
    command = rank_processes(MODULE, *options, ranks=ranks, private=private)
    spec = specs.learner(plan, folder, grace_s=5, hint=lambda: "")
    environment = dict(rank_environment(1, private=private))
    again = f"--max-restarts={by_torchrun}"
    command = tuple(again if word == "--max-restarts=0" else word for word in command)
    return dataclasses.replace(spec, command=command, env=environment)


def train(
    folder: Path, *deaths: tuple[str, int, str], ranks: int = 1, by_torchrun: int = 0
) -> tuple[list[str], list[str]]:
    """Train in ``folder``; what the starter told, and the leases that were worked on."""
    told: list[str] = []
    runner = Scripted(folder)
    make_model(folder / "model")
    (folder / "deaths.json").write_text(json.dumps(deaths))
    (folder / VERSION).write_text("0")
    with ExitStack() as stack:
        private = stack.enter_context(private_folder(folder))
        plan = make_plan(Config(), RunFiles(config=folder / "none", private=private))
        supervisor = stack.enter_context(Supervisor(tell=told.append))
        supervisor.start(learner(plan, folder, ranks=ranks, by_torchrun=by_torchrun))
        stack.enter_context(an_actor(plan, runner))
        supervisor.finish(LEARNER, timeout_s=600)
    return told, runner.begun


def result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def check_nothing_is_lost_or_twice(folder: Path, begun: list[str]) -> None:
    found = recover(folder / "journal", since=0)
    changes = [from_record(read_place(place)) for place in found.places]
    accepted = [c.trajectory.trajectory_id for c in changes if isinstance(c, Accepted)]
    taken = [c for c in changes if isinstance(c, Taken)]
    trained = [trajectory for batch in taken for trajectory in batch.trajectories]
    assert [batch.version for batch in taken] == list(range(STEPS))
    assert sorted(trained) == sorted(accepted) == sorted(set(accepted))
    assert max(Counter(begun).values()) == 1, "no lease was worked on twice"
    counted = result(folder)
    assert counted["trained"] == STEPS * BATCH
    assert counted["started"] == counted["trained"] + sum(counted["dropped"].values())
    assert len(begun) == counted["started"], "what actors held was adopted"


def undisturbed(folder: Path) -> str:
    """Digest of the weights of a learner that nobody kills."""
    make_model(folder / "model")
    life = Life(
        folder=folder, model_folder=folder / "model", config=with_steps(STEPS), every=EVERY,
        resume=False,
    )  # fmt: skip
    assert life.run()
    return life.servers.digests[-1]


def test_a_learner_that_is_killed_twice_comes_back_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    killed.mkdir()

    told, begun = train(killed, *TWICE)

    assert [text.partition(" unexpectedly")[0] for text in told] == [
        "learner was ended by signal 9 (SIGKILL)"
    ] * len(TWICE)
    check_nothing_is_lost_or_twice(killed, begun)
    assert result(killed)["digest"] == undisturbed(plain)


ON_RANKS = (
    ("publish", 2, "other"),
    ("saved", 3, "agent"),
    ("publish", 5, "self"),
    ("publish", 6, "all"),
)


@pytest.mark.nightly
def test_ranks_and_the_agent_above_them_come_back_whichever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    killed.mkdir()
    plain.mkdir()

    told, begun = train(killed, *ON_RANKS, ranks=2)

    assert len(told) == len(ON_RANKS)
    assert "rank 1 was ended by signal 9 (SIGKILL)" in told[0]
    assert "learner was ended by signal 9 (SIGKILL)" in told[1]
    assert "rank 0 was ended by signal 9 (SIGKILL)" in told[2]
    check_nothing_is_lost_or_twice(killed, begun)
    train(plain, ranks=2)
    assert result(killed)["digest"] == result(plain)["digest"]


@pytest.mark.nightly
def test_ranks_that_torchrun_itself_starts_again_go_on_too(tmp_path: Path) -> None:
    """As under a launcher of one's own: ``torchrun --max-restarts``."""
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    killed.mkdir()
    plain.mkdir()
    deaths = (("publish", 2, "other"), ("saved", 3, "self"))
    told, begun = train(killed, *deaths, ranks=2, by_torchrun=len(deaths))

    assert not told
    check_nothing_is_lost_or_twice(killed, begun)
    train(plain, ranks=2)
    assert result(killed)["digest"] == result(plain)["digest"]
