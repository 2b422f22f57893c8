"""Sets of questions, and what is asked of a model: which questions, how, and how often."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.task_rules import TaskRules
from common.tasks import read_tasks
from common.wire.records import Task

AskMode = Literal["agent", "direct", "rag"]
"""``agent``: in a notebook; ``direct``: one answer; ``rag``: the same with pages found before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionSet:
    """Questions that are scored together.

    Attributes:
        name: of its scores.
        tasks: path of its task file.
    """

    name: str
    tasks: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AskJob:
    """Questions to ask, and whom.

    Attributes:
        sets: what to ask.
        mode: how.
        samples: episodes per task.
        limit: tasks per set, in file order; 0 for all.
        temperature: of the sampling.
        corpus: search index of every task; empty for none.
        parallel: episodes in flight.
        url: OpenAI-compatible server; empty for the policy server of the run's plan.
        model: its name there; empty for the only one.
        key_variable: environment variable with the API key; empty for none.
    """

    sets: tuple[QuestionSet, ...]
    mode: AskMode
    samples: int
    limit: int
    temperature: float
    corpus: str
    parallel: int
    url: str = ""
    model: str = ""
    key_variable: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedQuestion:
    """One sample of one task of one set."""

    question_set: str
    task: Task
    sample: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What an episode of it is recognised by."""
        return (self.question_set, self.task.task_id, self.sample)


def questions_of(job: AskJob, rules: TaskRules) -> list[AskedQuestion]:
    """All questions of a job; every task once before any is asked again.

    Raises:
        InputError: a task file cannot be used.
    """
    tasks = [
        (one.name, task)
        for one in job.sets
        for task in read_tasks(Path(one.tasks), rules=rules)[: job.limit or None]
    ]
    return [
        AskedQuestion(question_set=name, task=task, sample=sample)
        for sample in range(job.samples)
        for name, task in tasks
    ]
