"""A user's own questions and pages take the same path as the generated ones.

A scripted policy searches the supporting titles and submits the gold answer; the actor process,
kernels, transport and rewards are the real ones, so every episode must score 1.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from actors.tools.search.index import build_index
from common.config import Config
from common.config_file import save_config
from common.places import LEARNER
from common.plan_file import PLAN, own_keys, tell_coordinator
from common.tasks import read_tasks
from common.wire.records import Outcome, Task, Trajectory
from common.wire.sockets import Wire
from launch.data.convert import convert
from launch.plan.topology import RunFiles
from launch.starters.private import make_plan, private_folder
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.store import TrajectoryStore
from tests.asked_servers import asked

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"
MODEL = REPOSITORY / "launch" / "presets" / "warmstart"


def scripted_actions(task: Task) -> list[str]:
    """Search every supporting title, then submit the gold answer."""
    titles = json.loads(task.labels["supporting_titles"])
    codes = [f"print(search({title!r}))" for title in titles]
    codes.append(f"submit_final_answer({task.answers[0]!r})")
    return [f"<think>go on</think><code>{code}</code>" for code in codes]


def play(tasks: Sequence[Task], corpus: Path, folder: Path) -> list[Trajectory]:
    """One trajectory of each task by the scripted policy through a real actor process."""
    index = folder / "corpus.sqlite"
    build_index(corpus, index)
    config = Config()
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, name="scripted", folder=str(folder)),
        model=dataclasses.replace(config.model, path=str(MODEL), max_context=4096),
        tasks=dataclasses.replace(config.tasks, train_corpus=str(index)),
        agent=dataclasses.replace(config.agent, max_action_tokens=512),
        actors=dataclasses.replace(config.actors, episodes=16),
    )
    scripts = {task.question: scripted_actions(task) for task in tasks}
    (folder / "scripts.json").write_text(json.dumps(scripts))
    coordinator = Coordinator(
        TaskOrder(tasks, seed=0),
        groups_per_batch=len(tasks),
        group_size=1,
        max_staleness=0,
        total_batches=1,
        max_buffered_bytes=1 << 30,
    )
    with ExitStack() as stack:
        private = stack.enter_context(private_folder(folder))
        save_config(config, folder / "config.json")
        plan = make_plan(config, RunFiles(config=folder / "config.json", private=private))
        server = start(
            [sys.executable, str(DATA.parent / "integration" / "scripted_server.py"),
             str(Path(plan.private) / PLAN), str(MODEL), str(folder / "scripts.json")],
            stack,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        wire = stack.enter_context(Wire(own_keys(plan, LEARNER)))
        known = {member.key: member.name for member in plan.members if member.role == "actor"}
        door = wire.listen("coordinator", plan.coordinator, known, ACTOR_LIMITS)
        store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 24)
        intake = stack.enter_context(
            Intake(coordinator, store, door, membership=asked(plan.servers))
        )
        tell_coordinator(plan, door.address)
        actor = start(plan.processes[-1].command, stack)
        batch = intake.take_batch(learner_version=0, timeout_s=120)
        intake.drain("done", timeout_s=20)
        assert actor.wait(timeout=20) == 0
    return batch


def start(
    command: Sequence[str], stack: ExitStack, stdout: int | None = None
) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=stdout,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    if process.stdout is not None:
        stack.callback(process.stdout.close)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.mark.sandbox
def test_scripted_policy_scores_one_on_every_converted_question(tmp_path: Path) -> None:
    convert(
        DATA / "hotpot_small.json",
        corpus=DATA / "hotpot_small_corpus.json",
        out=tmp_path,
    )
    tasks = read_tasks(tmp_path / "tasks.jsonl")

    trajectories = play(tasks, tmp_path / "corpus.jsonl", tmp_path)

    assert {t.task_id: t.scores["exact_match"] for t in trajectories} == dict.fromkeys(
        (task.task_id for task in tasks), 1.0
    )
    assert {t.outcome for t in trajectories} == {Outcome.SUBMITTED}
    observed = next(t for t in trajectories if t.task_id == "hotpotqa-s6").steps[0].observation
    assert "Grind" in observed
