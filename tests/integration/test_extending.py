"""The package that docs/extending.md shows works as it stands there, file by file.

A scripted policy server plays the policy; tools, kernel, task type and rewards are the real ones,
found by name through the configuration.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.rewards.task_types import asked_question, check_task, task_type
from actors.tools.started import started_tools
from actors.wiring import make_policy, make_runner, started_judge, token_conversations
from common.config import Config
from common.config_file import load_config
from common.errors import ConfigError
from common.places import RunPlan
from common.plan_file import PLAN, load_plan, own_keys, save_plan
from common.task_rules import task_rules
from common.tasks import read_tasks
from common.wire.records import Outcome, Purpose, Task, TaskLease, Trajectory
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles, members, plan_run
from launch.run.preflight import check_agent
from launch.starters.private import make_keys

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "extending.md"
MODEL = REPOSITORY / "launch" / "presets" / "warmstart"
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)

SCRIPTS = {
    "c1": [
        "cities = open('cities.txt').read().split()\nprint({c: population(c) for c in cities})",
        "submit_final_answer('Vienna; Oslo')",
    ],
    "c2": ["n = population('Graz')", "submit_final_answer(round_to(n, step=100000))"],
    "lost": ["population('Atlantis')", "submit_final_answer('Oslo; Atlantis')"],
}


def write_package(folder: Path) -> None:
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every file of the page, from which ``my_agents`` can be imported."""
    write_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    task_type.cache_clear()
    yield tmp_path
    task_type.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_agents"]:
        del sys.modules[name]


def load(package: Path, *overrides: str) -> Config:
    here = [f"model.path={MODEL}", "kernel.preload_numpy=false", "kernel.idle=1"]
    return load_config(package / "run.toml", [*here, *overrides])


def planned(config: Config, folder: Path) -> RunPlan:
    """The plan of a run whose private folder is ``folder``."""
    files = RunFiles(config=folder / "config.json", private=folder)
    if files.plan.exists():
        return load_plan(files.plan)
    plan = plan_run(config, files, make_keys(folder, members(config)))
    save_plan(plan)
    return plan


@pytest.fixture
def serve_scripts(tmp_path: Path) -> Iterator[Callable[[Config, list[Task]], None]]:
    """Start a policy server that plays ``SCRIPTS``."""
    processes: list[subprocess.Popen[bytes]] = []

    def serve(config: Config, tasks: list[Task]) -> None:
        scripts = {
            asked_question(task): [
                f"<think>go on</think><code>{code}</code>" for code in SCRIPTS[task.task_id]
            ]
            for task in tasks
        }
        (tmp_path / "scripts.json").write_text(json.dumps(scripts))
        planned(config, tmp_path)
        program = Path(__file__).with_name("scripted_server.py")
        server = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path / PLAN), str(MODEL),
             str(tmp_path / "scripts.json")],
            cwd=REPOSITORY, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        processes.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"

    yield serve
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def play(config: Config, folder: Path, tasks: list[Task]) -> dict[str, Trajectory]:
    """One trajectory of each task, by the parts that an actor is made of."""

    async def episodes() -> list[Trajectory]:
        plan = planned(config, folder)
        wire = Wire(own_keys(plan, "a0"))
        policy = make_policy(config, plan.servers, wire, who="a0")
        kernels = KernelPool(make_launcher(config.kernel), idle=1)
        try:
            await kernels.start()
            async with started_judge(config) as judge, started_tools(config) as tools:
                runner = make_runner(
                    config,
                    actor_id="a0",
                    conversations=token_conversations(config, policy),
                    kernels=kernels,
                    tools=tools,
                    judge=judge,
                )
                return [await runner.run(lease(task)) for task in tasks]
        finally:
            await kernels.close()
            await policy.close()
            wire.close()

    return {trajectory.task_id: trajectory for trajectory in asyncio.run(episodes())}


def lease(task: Task) -> TaskLease:
    return TaskLease(
        lease_id=f"lease-{task.task_id}",
        group_id=task.task_id,
        sample_index=0,
        purpose=Purpose.TRAIN,
        temperature=1.0,
        task=task,
    )


@pytest.mark.sandbox
def test_the_package_of_the_page_runs_as_it_stands_there(
    package: Path, serve_scripts: Callable[[Config, list[Task]], None]
) -> None:
    config = load(package)
    tasks = read_tasks(package / "tasks.jsonl", rules=task_rules(config), check=check_task)
    lost = Task(task_id="lost", question="Which?", kind=tasks[0].kind, answers=("Oslo",))
    serve_scripts(config, [*tasks, lost])

    played = play(config, package, [*tasks, lost])

    assert {t.outcome for t in played.values()} == {Outcome.SUBMITTED}, played
    cities, number, wrong = (played[name] for name in ("c1", "c2", "lost"))
    # Tool, files and question: what the agent saw.
    assert cities.steps[0].observation == "{'Bergen': 291940, 'Oslo': 717710, 'Vienna': 2005760}"
    assert cities.steps[0].tool_calls == ("population",) * 3
    assert "no city 'Atlantis' in the table" in wrong.steps[0].observation
    # Task types: what the answers are worth.
    assert (cities.scores["exact_match"], cities.scores["wrong_names"]) == (1.0, 0.0)
    assert (number.answer, number.scores["exact_match"]) == ("300000", 1.0)
    assert wrong.scores["f1"] == pytest.approx(2 / 3)
    assert wrong.scores["wrong_names"] == 1.0
    # Reward: the default, less a tenth of the term.
    assert cities.scores["my_agents.rewards:tool_calls"] == pytest.approx(4 / 20)
    assert cities.step_rewards.tolist() == pytest.approx([0.1 - 0.015, 0.9 - 0.005])


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("module", "source", "failure"),
    [
        (
            "rewards",
            "def tool_calls(episode):\n    return [1.0]\n",
            "PluginError: rewards.terms: 'my_agents.rewards:tool_calls' must return one number for "
            "each of the 2 steps of task 'c1', got 1: [1.0] "
            "({package}/my_agents/rewards.py, line 1, in tool_calls)",
        ),
        (
            "task_types",
            "from actors.rewards.task_types import TaskType\n"
            "class AnyOrder(TaskType):\n"
            "    measures = ('exact_match',)\n"
            "    def measure(self, task, answer):\n"
            "        return {'exact_match': float('nan')}\n",
            "PluginError: kind 'my_agents.task_types:AnyOrder' of task 'c1': measure must return "
            "a finite number for 'exact_match', got nan, which is not finite "
            "({package}/my_agents/task_types.py, line 4, in measure)",
        ),
    ],
    ids=["too few rewards", "not a number"],
)
def test_a_plug_in_that_fails_drops_its_episode_and_is_named(
    package: Path,
    serve_scripts: Callable[[Config, list[Task]], None],
    module: str,
    source: str,
    failure: str,
) -> None:
    (package / "my_agents" / f"{module}.py").write_text(source)
    config = load(package)
    tasks = read_tasks(package / "tasks.jsonl", rules=task_rules(config))[:1]
    serve_scripts(config, tasks)

    trajectory = play(config, package, tasks)["c1"]

    assert trajectory.outcome is Outcome.INFRASTRUCTURE
    assert trajectory.failure == failure.format(package=package)


def check_tasks(package: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", "tasks", "check", "tasks.jsonl", *options],
        cwd=package, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{package}"},
    )  # fmt: skip


def test_lzero_checks_the_tasks_of_the_page(package: Path) -> None:
    done = check_tasks(package, "--config", "run.toml")

    assert done.stdout == "tasks.jsonl: 2 tasks, no mistakes\n", done.stderr


def test_a_kind_that_the_configuration_does_not_name_is_not_imported(package: Path) -> None:
    (package / "my_agents" / "task_types.py").write_text("open('imported', 'w')\n")

    done = check_tasks(package)

    assert done.returncode == 2
    assert "tasks.jsonl, line 1: field 'kind': 'my_agents.task_types:AnyOrder' imp" in done.stderr
    assert "set tasks.kinds = ['my_agents.task_types:AnyOrder']" in done.stderr
    assert not (package / "imported").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            'agent.tools=["my_agents.tools:Populations", "submit_final_answer"]',
            r"agent.tools: module 'my_agents.tools' has no 'Populations'; did you mean 'Popul",
        ),
        (
            'agent.tools=["my_agents.tool:Population", "submit_final_answer"]',
            r"agent.tools: cannot import 'my_agents.tool' for 'my_agents.tool:Population'",
        ),
        (
            'agent.tools=["my_agents.tools:csv", "submit_final_answer"]',
            r"agent.tools: 'my_agents.tools:csv' is neither a tool nor a function",
        ),
        (
            'agent.tools=["my_agents.tools:csv.Error", "submit_final_answer"]',
            r"agent.tools: 'my_agents.tools:csv.Error' must be written package.module:name",
        ),
        (
            'agent.tools=["my_agents.closed:Closed", "submit_final_answer"]',
            r"agent.tools: 'my_agents.closed:Closed' is neither .*: OSError: no table",
        ),
        (
            'rewards.terms."my_agents.rewards:calls"=1',
            r"rewards.terms: module 'my_agents.rewards' has no 'calls'; did you mean 'tool_calls'",
        ),
        (
            'rewards.terms."my_agents.rewards:FinishedEpisode"=1',
            r"rewards.terms: 'my_agents.rewards:FinishedEpisode' must be a function",
        ),
        (
            'tasks.kinds=["my_agents.task_types:AnyOder"]',
            r"tasks.kinds: module 'my_agents.task_types' has no 'AnyOder'; did you mean 'AnyOrder'",
        ),
    ],
)
def test_a_wrong_name_is_found_before_anything_starts(
    package: Path, override: str, message: str
) -> None:
    (package / "my_agents" / "closed.py").write_text(
        "class Closed:\n    def __init__(self):\n        raise OSError('no table')\n"
    )
    config = load(package, override)

    with pytest.raises(ConfigError, match=message):
        check_agent(config)
