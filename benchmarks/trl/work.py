"""The work that both sides do: model, questions, batch and lengths; and what an answer is worth."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from actors.agent.direct.reading import direct_answer
from actors.agent.toolbox import cut_answer
from actors.rewards.task_types import measure_answer
from common.json_output import json_text
from common.wire.records import Task


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training, the same for both sides; both compute in float32.

    Attributes:
        model: Hugging Face folder.
        tasks: task file; its questions are asked as they are.
        steps: optimizer steps, one per batch.
        groups: questions of a batch.
        group_size: answers to each.
        action_tokens: longest answer.
        learning_rate: of AdamW, constant after ``warmup_steps`` steps.
        temperature: of sampling, with nothing cut from the distribution.
        max_staleness: versions that our actions may lag behind; TRL's never do.
        cores: that a side may use.
        seed: of the order of questions.
    """

    model: str
    tasks: str
    steps: int
    groups: int
    group_size: int
    action_tokens: int
    learning_rate: float
    max_staleness: int
    cores: int
    warmup_steps: int = 2
    temperature: float = 1.0
    seed: int = 0

    @property
    def batch(self) -> int:
        """Trajectories of a step."""
        return self.groups * self.group_size


def write_work(work: Work, path: Path) -> None:
    """Write what ``read_work`` reads back, in another process."""
    path.write_text(json_text(dataclasses.asdict(work), indent=1) + "\n")


def read_work(path: Path) -> Work:
    """The work that ``write_work`` wrote."""
    return Work(**json.loads(path.read_text()))


def answer_reward(task: Task, text: str) -> float:
    """1 where a message answers ``task`` exactly, read and measured as by an actor; else 0."""
    answer = cut_answer(direct_answer(text, task.kind)) or None
    return measure_answer(task, answer)["exact_match"]
