"""Two real vLLM servers share a run's episodes; one is killed in the middle of requests."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from actors.hosted import HostLine
from actors.policy import PolicyClient
from common.config import Config, PolicyServer
from common.config_file import save_config
from common.join_file import JOIN_FILE, write_join_file
from common.places import EVALUATION, JOIN, LEARNER, Role, RunPlan
from common.plan_file import own_keys, tell_coordinator
from common.telemetry.process_totals import add_actor_totals, read_actor_totals
from common.wire.records import Task, Trajectory
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles
from launch.run.joining import drain
from launch.starters import specs
from launch.starters.local import Supervisor
from launch.starters.private import make_plan, private_folder
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.membership import Membership
from learner.coordination.newcomers import Newcomers
from learner.coordination.roster import Standing
from learner.coordination.store import TrajectoryStore
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.rank_zero import guests_among, terms_of
from learner.weights.channel import WORKER_LIMITS
from learner.weights.contents import weights_to_publish
from learner.weights.publisher import WeightPublisher
from learner.weights.verifier import ParityVerifier, random_prompts
from tests.waiting import wait_for

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "launch" / "presets" / "warmstart"
TASKS = [
    Task(task_id=f"t{i}", question=f"Where was person {i} born?", answers=("here",))
    for i in range(8)
]
GROUPS, SIZE, MOST_BATCHES = 4, 2, 200
PROMPTS = random_prompts(1536, seed=0, max_context=64)
TOLERANCE = 1e-3


def settings(folder: Path) -> Config:
    config = Config()
    return dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, folder=str(folder)),
        model=dataclasses.replace(config.model, path=str(MODEL), max_context=1024),
        policy_server=PolicyServer(count=2, threads=1, memory_gib=0.25, max_sequences=16),
        agent=dataclasses.replace(
            config.agent, max_action_tokens=64, max_steps=3, tools=("submit_final_answer",)
        ),
        actors=dataclasses.replace(config.actors, episodes=12),
        kernel=dataclasses.replace(config.kernel, preload_numpy=False, idle=1),
    )


class Learner:
    """Publishes, compares and takes batches as a learner does; its steps are random."""

    def __init__(self, config: Config, plan: RunPlan, folder: Path, stack: ExitStack) -> None:
        self.file = folder / JOIN_FILE
        self.seen: list[Trajectory] = []
        self.version = 0
        self.membership = Membership(plan.servers, guests=guests_among(plan.members))
        rank = stack.enter_context(training_processes())
        self._model = load_model(MODEL)
        self._verifier = ParityVerifier(self._model, rank, tolerance=TOLERANCE)
        wire = stack.enter_context(Wire(own_keys(plan, LEARNER)))
        workers = wire.listen("weights", plan.weights, known(plan, "policy-server"), WORKER_LIMITS)
        keys = known(plan, "actor") | known(plan, "newcomer")
        door = wire.listen("coordinator", plan.coordinator, keys, ACTOR_LIMITS)
        self._wire = wire
        terms = terms_of(
            config, plan, coordinator=door, weights=workers, membership=self.membership
        )
        self._publisher = WeightPublisher(
            self.membership, workers, wire, watch_every_s=0.5, return_s=60
        )
        self._publisher.start()
        stack.callback(self._publisher.stop)
        self._publish()
        coordinator = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE, max_staleness=2,
            total_batches=MOST_BATCHES, max_buffered_bytes=1 << 30,
        )  # fmt: skip
        store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 24)
        intake = Intake(
            coordinator, store, door, membership=self.membership,
            newcomers=Newcomers(terms, plan.members),
            add_totals=partial(add_actor_totals, folder=folder / "actors"),
        )  # fmt: skip
        self.intake = stack.enter_context(intake)
        tell_coordinator(plan, door.address)
        write_join_file(self.file, door.address, own_keys(plan, JOIN))

    def step(self) -> None:
        batch = self.intake.take_batch(learner_version=self.version, timeout_s=120)
        assert batch is not None
        self.seen += batch
        self.publish_next()
        self.intake.acknowledge(self.version)

    def publish_next(self) -> None:
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.mul_(1 + 0.01 * torch.randn(()).item())
        self.version += 1
        self._publish()

    def _publish(self) -> None:
        self._publisher.publish(self.version, weights_to_publish(self._model, complete=True))
        self._verifier.run(PROMPTS, self.membership, self._wire, version=self.version)

    def let_in(self, name: str) -> bool:
        """Compare those that came to the newest version; whether this one is asked now."""
        with self.membership.roster() as roster:
            unproven = roster.unproven()
        if unproven:
            self._verifier.run(PROMPTS, self.membership, self._wire, version=self.version)
        return self.standing(name) is Standing.CURRENT

    def standing(self, name: str) -> Standing:
        with self.membership.roster() as roster:
            return roster.standing(name)


def known(plan: RunPlan, role: Role) -> dict[str, str]:
    return {member.key: member.name for member in plan.members if member.role == role}


def kill_server(name: str, private: str) -> None:
    """SIGKILL the host of that server of a run; its guard ends what is below it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if {name, f"{private}/plan.json"} <= set(words) and not any(
                word.endswith("guard.py") for word in words
            ):
                os.kill(int(entry.name), signal.SIGKILL)


async def killed_in_the_middle(plan: RunPlan, victim: str, other: str) -> tuple[int, int]:
    """Tokens that came of requests which were sampled at ``victim`` when it died, and retries."""
    places = {place.name: place.address for place in plan.servers}
    with Wire(own_keys(plan, EVALUATION)) as wire:
        client = PolicyClient(
            [victim],
            lambda name: HostLine(wire, places[name], who=EVALUATION),
            timeout_s=120,
            attempts=5,
        )
        return await _killed_in_the_middle(plan, client, victim, other)


async def _killed_in_the_middle(
    plan: RunPlan, client: PolicyClient, victim: str, other: str
) -> tuple[int, int]:
    async with client:
        requests = [
            asyncio.create_task(
                client.generate(prompt, max_tokens=300, temperature=1.0, stop_token_ids=())
            )
            for prompt in PROMPTS
        ]
        # A short request behind them in the queue: once it is back, they are being sampled.
        await client.generate(PROMPTS[0], max_tokens=2, temperature=1.0)
        under_way = sum(not request.done() for request in requests)
        client.rotate([victim, other])
        kill_server(victim, plan.private)
        answers = await asyncio.gather(*requests)
        assert all(len(answer.token_ids) for answer in answers)
        return under_way, client.statistics().retries


@contextmanager
def a_run(config: Config, folder: Path, told: list[str]) -> Iterator[tuple[RunPlan, Supervisor]]:
    with private_folder(folder) as private:
        save_config(config, folder / "config.json")
        plan = make_plan(config, RunFiles(config=folder / "config.json", private=private))
        with Supervisor(tell=told.append) as supervisor:
            supervisor.start(*specs.policy_servers(plan, config, folder))
            yield plan, supervisor


def test_a_server_killed_in_the_middle_of_requests_costs_a_retry_and_comes_back(
    tmp_path: Path,
) -> None:
    config, told = settings(tmp_path), list[str]()
    with a_run(config, tmp_path, told) as (plan, supervisor), ExitStack() as stack:
        learner = Learner(config, plan, tmp_path, stack)
        victim, other = (place.name for place in plan.servers)
        faults: list[BaseException] = []
        under_way = retries = 0

        def train() -> None:
            nonlocal under_way, retries
            try:
                learner.step()
                assert {one.server for one in learner.membership.rotation.asked} == {"s0", "s1"}
                under_way, retries = asyncio.run(killed_in_the_middle(plan, victim, other))
                learner.step()
                assert [one.server for one in learner.membership.rotation.asked] == ["s1"]
                while learner.standing("s0") is not Standing.CURRENT:
                    learner.step()
                learner.step()
                assert {one.server for one in learner.membership.rotation.asked} == {"s0", "s1"}
            except BaseException as error:
                faults.append(error)
            learner.intake.drain("done", timeout_s=30)

        (actor,) = specs.actors(plan, tmp_path, grace_s=5, hint=lambda: "")
        supervisor.spawn(actor)
        training = threading.Thread(target=train)
        training.start()
        supervisor.finish("actor-a0", timeout_s=400)
        training.join(timeout=60)
        assert not faults, faults
        counters = learner.intake.counters()

    assert under_way >= 1
    assert retries >= 1
    names = [trajectory.trajectory_id for trajectory in learner.seen]
    assert len(names) == len(set(names)) == GROUPS * SIZE * learner.version
    in_buffer = counters.started - counters.trained - counters.dropped.total()
    assert 0 <= in_buffer <= 3 * GROUPS * SIZE
    stale = {"stale_on_arrival", "stale_in_buffer"}
    assert set(counters.dropped) <= {"actor_left", *stale}, "no episode failed"
    assert [text.partition(" was ended")[0] for text in told] == ["policy-server-s0"]
    assert read_actor_totals(tmp_path / "actors")["a0"].requests > GROUPS * SIZE * learner.version


def test_a_server_that_joins_is_asked_once_it_is_proven_and_leaves_when_it_is_told(
    tmp_path: Path,
) -> None:
    base = settings(tmp_path)
    config = dataclasses.replace(
        base, policy_server=dataclasses.replace(base.policy_server, count=1)
    )
    with a_run(config, tmp_path, []) as (plan, _), ExitStack() as stack:
        learner = Learner(config, plan, tmp_path, stack)
        learner.publish_next()
        command = ["join", str(learner.file), "--role", "server"]
        with subprocess.Popen(
            [sys.executable, "-m", "launch.cli", *command],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as joined:  # fmt: skip

            def is_in() -> bool:
                assert joined.poll() is None, joined.communicate()
                return learner.let_in("s1")

            wait_for(is_in, timeout_s=240)
            assert {one.server for one in learner.membership.rotation.asked} == {"s0", "s1"}

            assert drain(learner.file, "s1") == "s1 gets no more requests and leaves"

            assert [one.server for one in learner.membership.rotation.asked] == ["s0"]
            said, _ = joined.communicate(timeout=60)
            assert joined.returncode == 0, said
            assert "s1: joining, it waits for its parity check" in said
            assert said.endswith("s1 has left the run\n")
