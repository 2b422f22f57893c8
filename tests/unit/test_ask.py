"""Asking many questions: each once, at most so many at once, and no further where nothing works."""

import asyncio
import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.ask import LONGEST_ROW, Asker, ask_all, episode_file, pending
from common.asking import AskedQuestion, AskJob, QuestionSet, questions_of
from common.episode_record import parse_record
from common.errors import InputError, PolicyServerError
from common.task_rules import NO_EXTRAS
from common.tasks import write_tasks
from common.wire.records import Outcome, Task, TaskLease, Trajectory
from tests.makers import make_trajectory


class Runner:
    """Ends the episode of each lease as told, after the others have had their turn."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = outcomes
        self.leases: list[TaskLease] = []
        self.running = self.most = 0

    def converse(self, temperature: float) -> Any:
        return SimpleNamespace(prompt_tokens=7)

    async def run(self, lease: TaskLease, conversation: Any) -> Trajectory:
        outcome = self.outcomes[min(len(self.leases), len(self.outcomes) - 1)]
        self.leases.append(lease)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return make_trajectory(lease.lease_id, outcome=outcome, task_id=lease.task.task_id)


def asker(runner: Runner, parallel: int = 2) -> Asker:
    return Asker(runner=runner, temperature=0.3, parallel=parallel)  # type: ignore[arg-type]


def questions(count: int) -> list[AskedQuestion]:
    tasks = (Task(task_id=f"t{n}", question="?", answers=("x",)) for n in range(count))
    return [AskedQuestion(question_set="s", task=task, sample=0) for task in tasks]


def test_every_question_is_asked_once_in_order_and_recorded() -> None:
    runner, sink = Runner(Outcome.SUBMITTED), io.StringIO()

    failed = asyncio.run(ask_all(questions(5), asker(runner), sink))

    records = [parse_record(json.loads(line)) for line in sink.getvalue().splitlines()]
    assert failed == 0
    assert [lease.task.task_id for lease in runner.leases] == ["t0", "t1", "t2", "t3", "t4"]
    assert {lease.temperature for lease in runner.leases} == {0.3}
    assert runner.most == 2
    assert [record.key for record in records] == [("s", f"t{n}", 0) for n in range(5)]  # type: ignore[union-attr]
    assert {record.prompt_tokens for record in records} == {7}  # type: ignore[union-attr]


def test_it_gives_up_where_nothing_but_failures_of_the_machinery_come_in() -> None:
    runner = Runner(Outcome.SUBMITTED, Outcome.INFRASTRUCTURE)

    with pytest.raises(PolicyServerError, match="episodes in a row failed"):
        asyncio.run(ask_all(questions(100), asker(runner), io.StringIO()))

    assert LONGEST_ROW < len(runner.leases) <= LONGEST_ROW + 5


def test_failures_now_and_then_are_counted_and_it_goes_on() -> None:
    outcomes = [Outcome.INFRASTRUCTURE if n % 3 else Outcome.SUBMITTED for n in range(60)]

    assert asyncio.run(ask_all(questions(60), asker(Runner(*outcomes)), io.StringIO())) == 40


def test_a_full_disk_ends_it_with_a_message() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        asyncio.run(ask_all(questions(3), asker(Runner(Outcome.SUBMITTED)), Full()))


def test_what_was_answered_is_not_asked_again_and_what_failed_is() -> None:
    sink, asked = io.StringIO(), questions(3)
    runner = Runner(Outcome.SUBMITTED, Outcome.INFRASTRUCTURE, Outcome.TIMED_OUT)
    asyncio.run(ask_all(asked, asker(runner, parallel=1), sink))
    records = [parse_record(json.loads(line)) for line in sink.getvalue().splitlines()]

    left = pending([*asked, dataclasses.replace(asked[0], sample=1)], records)  # type: ignore[arg-type]

    assert [question.key for question in left] == [("s", "t1", 0), ("s", "t0", 1)]


def test_a_line_that_was_cut_by_a_kill_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"whole": 1}\n{"cut": ')

    with episode_file(path) as sink:
        sink.write('{"next": 2}\n')

    assert path.read_text() == '{"whole": 1}\n{"next": 2}\n'


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), episode_file(tmp_path):
        pass


def test_all_tasks_are_asked_once_before_any_is_asked_again(tmp_path: Path) -> None:
    for name in "ab":
        tasks = [Task(task_id=f"{name}{n}", question="?", answers=("x",)) for n in range(3)]
        write_tasks(tasks, tmp_path / f"{name}.jsonl")
    job = AskJob(
        sets=tuple(QuestionSet(name=n, tasks=str(tmp_path / f"{n}.jsonl")) for n in "ab"),
        mode="direct",
        samples=2,
        limit=2,
        temperature=1.0,
        corpus="",
        parallel=1,
    )

    keys = [question.key for question in questions_of(job, NO_EXTRAS)]

    once = [("a", "a0"), ("a", "a1"), ("b", "b0"), ("b", "b1")]
    assert keys == [(*key, sample) for sample in (0, 1) for key in once]
