"""Actors come into a run, and leave it, while it goes on: from none to many and back to none.

Coordinator, transport, ``lzero join``, actor processes and kernels are the real ones; the policy
plays a script.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from common.config_file import save_config
from common.errors import InputError
from common.join_file import JOIN_FILE, write_join_file
from common.places import JOIN, LEARNER
from common.plan_file import own_keys, told_joined
from common.telemetry.process_totals import add_actor_totals, read_actor_totals
from common.wire.records import NOT_AN_ACTION, Trajectory
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles
from launch.run.joining import drain
from launch.starters.local import Supervisor
from launch.starters.private import make_plan, private_folder
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.newcomers import Newcomers
from learner.coordination.store import TrajectoryStore
from learner.rank_zero import terms_of
from learner.weights.channel import WORKER_LIMITS
from learner.weights.publisher import WeightPublisher
from tests.asked_servers import asked
from tests.integration.test_process_restarts import (
    BATCHES,
    GROUPS,
    SIZE,
    TASKS,
    scripted_server,
    settings,
)
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]


class Run:
    """A run without actors of its own, and those that join it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.seen: list[Trajectory] = []
        self.joined: list[subprocess.Popen[str]] = []
        base = settings(folder)
        config = dataclasses.replace(
            base, actors=dataclasses.replace(base.actors, processes=0, episodes=4)
        )
        private = stack.enter_context(private_folder(folder))
        save_config(config, folder / "config.json")
        self.plan = make_plan(config, RunFiles(config=folder / "config.json", private=private))
        wire = stack.enter_context(Wire(own_keys(self.plan, LEARNER)))
        keys = {member.key: member.name for member in self.plan.members if member.name == JOIN}
        door = wire.listen("coordinator", self.plan.coordinator, keys, ACTOR_LIMITS)
        weights = wire.listen("weights", self.plan.weights, {}, WORKER_LIMITS)
        coordinator = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE, max_staleness=0,
            total_batches=BATCHES, max_buffered_bytes=1 << 30, silence_s=30.0,
        )  # fmt: skip
        membership = asked(self.plan.servers)
        publisher = WeightPublisher(membership, weights, wire, watch_every_s=0.2)
        publisher.start()  # for the introductions: the script's weights are for ever
        stack.callback(publisher.stop)
        terms = terms_of(
            config, self.plan, coordinator=door, weights=weights, membership=membership
        )
        self.intake = stack.enter_context(
            Intake(
                coordinator,
                TrajectoryStore(folder / "trajectories", limit_bytes=1 << 24),
                door,
                membership=membership,
                newcomers=Newcomers(terms, self.plan.members),
                add_totals=partial(add_actor_totals, folder=self.totals),
                tell=self.told.append,
            )
        )
        write_join_file(self.file, door.address, own_keys(self.plan, JOIN))

    @property
    def totals(self) -> Path:
        return self.folder / "actors"

    @property
    def file(self) -> Path:
        return self.folder / JOIN_FILE

    def join(self) -> "subprocess.Popen[str]":
        """``lzero join`` as an actor."""
        command = [sys.executable, "-m", "launch.cli", "join", str(self.file), "--role", "actor"]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.joined.append(process)
        return process

    def train(self, step: int) -> set[str]:
        """Take a batch; the actors that it is from."""
        self.intake.acknowledge(step)
        batch = self.intake.take_batch(learner_version=0, timeout_s=100)  # the script's for ever
        assert batch is not None
        self.seen += batch
        return {trajectory.actor_id for trajectory in batch}


@contextmanager
def a_run(folder: Path) -> Iterator[Run]:
    with ExitStack() as stack:
        run = Run(folder, stack)
        supervisor = stack.enter_context(Supervisor())
        supervisor.start(scripted_server(run.plan, folder))
        try:
            yield run
        finally:
            for process in run.joined:
                process.terminate()
                process.communicate(timeout=30)


def tokens_of(trajectories: list[Trajectory]) -> int:
    """Sampled by the policy."""
    segments = [segment for trajectory in trajectories for segment in trajectory.segments]
    return sum(int((segment.action_index != NOT_AN_ACTION).sum()) for segment in segments)


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.sandbox
def test_actors_come_and_go_and_the_run_waits_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.coordination.intake.TELL_ALONE_S", 0.0)
    with a_run(tmp_path) as run:
        assert run.file.stat().st_mode & 0o777 == 0o600
        first = run.join()
        assert run.train(0) == {"a0"}
        assert "leaves" in drain(run.file, "a0")
        assert end_of(first) == (0, "joined the run as a0\na0 has left the run\n")

        second = run.join()
        assert run.train(1) == {"a1"}
        third = run.join()
        wait_for(lambda: len(told_joined(run.plan)) == 3, timeout_s=60)
        run.train(2)
        run.intake.drain("done", timeout_s=30)
        assert {end_of(process)[0] for process in (second, third)} == {0}

        counters = run.intake.counters()
        names = [trajectory.trajectory_id for trajectory in run.seen]
        assert len(names) == len(set(names)) == GROUPS * SIZE * BATCHES
        assert counters.started == counters.trained + counters.dropped.total()
        totals = read_actor_totals(run.totals)
        assert list(totals) == ["a0", "a1", "a2"]
        assert sum(actor.tokens_generated for actor in totals.values()) >= tokens_of(run.seen)
        assert [text.partition(";")[0].partition(":")[0] for text in run.told[:3]] == [
            "the run waits for actors", "the run goes on with 1 actor", "the run waits for actors",
        ]  # fmt: skip


def test_who_is_no_member_or_the_last_server_cannot_be_sent_away(tmp_path: Path) -> None:
    with ExitStack() as stack:
        run = Run(tmp_path, stack)
        with pytest.raises(InputError, match=r"no member 'a7'; there are: s0"):
            drain(run.file, "a7")
        with pytest.raises(InputError, match=r"s0 is the only policy server of the run"):
            drain(run.file, "s0")
