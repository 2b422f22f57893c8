"""An actor and a policy server that are killed are started again, and every task is trained once.

Supervisor, actor process, kernels and transport are the real ones; the policy plays a script.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from common.config import Config
from common.config_file import save_config
from common.errors import RunError
from common.places import LEARNER, RunPlan
from common.plan_file import PLAN, own_keys, tell_coordinator, told_ready, told_welcomed
from common.wire.records import Task, Trajectory
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles
from launch.starters import specs
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor
from launch.starters.private import make_plan, private_folder
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.store import TrajectoryStore
from tests.asked_servers import asked

MODEL = Path(__file__).parents[2] / "launch" / "presets" / "warmstart"
SERVER = Path(__file__).with_name("scripted_server.py")
TASKS = [Task(task_id=f"t{i}", question=f"What is {i}?", answers=(str(i),)) for i in range(8)]
GROUPS, SIZE, BATCHES = 4, 2, 3


def settings(folder: Path) -> Config:
    config = Config()
    return dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, name="scripted", folder=str(folder)),
        model=dataclasses.replace(config.model, path=str(MODEL), max_context=4096),
        agent=dataclasses.replace(
            config.agent, max_action_tokens=512, tools=("submit_final_answer",)
        ),
        actors=dataclasses.replace(config.actors, episodes=4),
        transport=dataclasses.replace(config.transport, silence_s=3.0),
        kernel=dataclasses.replace(config.kernel, preload_numpy=False, idle=1),
    )


def scripted_server(plan: RunPlan, folder: Path) -> ProcessSpec:
    answer = "<think>go on</think><code>submit_final_answer({})</code>"
    scripts = {task.question: [answer.format(repr(task.answers[0]))] for task in TASKS}
    (folder / "scripts.json").write_text(json.dumps(scripts))
    (place,) = plan.servers
    told = str(Path(plan.private) / PLAN)
    return ProcessSpec(
        name="policy-server",
        command=(sys.executable, str(SERVER), told, str(MODEL), str(folder / "scripts.json")),
        log=folder / "policy-server.log",
        is_ready=lambda: told_ready(plan, place.name),
        is_restarted=True,
    )


@contextmanager
def a_coordinator(plan: RunPlan, folder: Path) -> Iterator[Intake]:
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE, max_staleness=BATCHES,
        total_batches=BATCHES, max_buffered_bytes=1 << 30, silence_s=3.0,
    )  # fmt: skip
    known = {member.key: member.name for member in plan.members if member.role == "actor"}
    with Wire(own_keys(plan, LEARNER)) as wire:
        door = wire.listen("coordinator", plan.coordinator, known, ACTOR_LIMITS)
        store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 24)
        with Intake(coordinator, store, door, membership=asked(plan.servers)) as intake:
            tell_coordinator(plan, door.address)
            yield intake


def kill(command: str, folder: Path) -> None:
    """SIGKILL the process of ours, below its guard, that has this in its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            is_guard = any(word.endswith("guard.py") for word in words)
            if command in words and not is_guard and any(str(folder) in word for word in words):
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.mark.sandbox
def test_what_is_killed_is_started_again_and_nothing_is_lost_or_trained_twice(
    tmp_path: Path,
) -> None:
    config, told = settings(tmp_path), list[str]()
    batches: list[list[Trajectory]] = []
    with ExitStack() as stack:
        private = stack.enter_context(private_folder(tmp_path))
        save_config(config, tmp_path / "config.json")
        plan = make_plan(config, RunFiles(config=tmp_path / "config.json", private=private))
        intake = stack.enter_context(a_coordinator(plan, tmp_path))

        def train() -> None:
            for step in range(BATCHES):
                batch = intake.take_batch(learner_version=step, timeout_s=100)
                assert batch is not None
                batches.append(batch)
                kill("actors.main", tmp_path) if step == 0 else kill(str(SERVER), tmp_path)
            intake.drain("done", timeout_s=30)

        (actor,) = specs.actors(plan, tmp_path, grace_s=5, hint=lambda: "")
        with Supervisor(tell=told.append) as supervisor:
            supervisor.start(scripted_server(plan, tmp_path))
            supervisor.spawn(actor)
            training = threading.Thread(target=train)
            training.start()
            supervisor.finish("actor-a0", timeout_s=120)
            training.join(timeout=30)

    seen = [trajectory.trajectory_id for batch in batches for trajectory in batch]
    assert len(seen) == len(set(seen)) == GROUPS * SIZE * BATCHES
    assert {trajectory.scores["exact_match"] for batch in batches for trajectory in batch} == {1.0}
    counters = intake.counters()
    assert counters.started == counters.trained + counters.dropped.total()
    for name in ("actor-a0", "policy-server"):
        assert any(text.startswith(f"{name} was ended by signal 9 (SIGKILL)") for text in told)


@pytest.mark.sandbox
def test_an_actor_that_cannot_start_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with private_folder(tmp_path) as private:
        save_config(config, tmp_path / "config.json")
        plan = make_plan(config, RunFiles(config=tmp_path / "config.json", private=private))
        (actor,) = specs.actors(plan, tmp_path, grace_s=5, hint=lambda: "")
        told: list[str] = []
        with Supervisor(tell=told.append) as supervisor:
            supervisor.spawn(actor)
            with pytest.raises(RunError, match=r"(?s)actor-a0 ended with exit code 2 .*listen yet"):
                supervisor.finish("actor-a0", timeout_s=60)
        assert not told
        assert not told_welcomed(plan, "a0")
