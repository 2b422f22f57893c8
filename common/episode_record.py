"""Episodes as a run keeps them: one JSON object a line, as text, without token ids.

Those of training (``trajectories/part-*.jsonl``, see docs/trajectories.md) and those of evaluations
(``evaluation/**/*.jsonl``) share most of their fields. What is missing in the line of an older
version has its default; what this one does not know is skipped.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common.errors import InputError
from common.evaluation import family_of
from common.json_output import json_text
from common.wire.records import NOT_AN_ACTION, Step, Task, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """What both kinds have; the fields are those of a ``Trajectory``."""

    outcome: str
    answer: str | None
    scores: Mapping[str, float]
    steps: tuple[Step, ...]
    failure: str = ""
    kernel_level: str = ""
    cells_executed: int = 0
    tokens_generated: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryRecord(EpisodeRecord):
    """An episode that the learner got, for training or for an evaluation during training.

    Attributes:
        step_rewards: one per step.
        oldest_version: lowest weight version that sampled any of its tokens.
        versions: lowest weight version that sampled a token of each action, one per action.
        tokens: length of each segment.
    """

    trajectory_id: str
    task_id: str
    step_rewards: tuple[float, ...]
    question: str = ""
    group_id: str = ""
    sample_index: int = 0
    purpose: str = ""
    actor_id: str = ""
    oldest_version: int | None = None
    versions: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    started_at: float = 0.0
    finished_at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord(EpisodeRecord):
    """An episode of an evaluation, with its task.

    Attributes:
        task: what was asked, as its file has it.
        weight_version: that sampled it; 0 for a model that no run has trained.
        question_set: name of the set that the task is from; empty before and after training.
        sample: number among the episodes of the same task, from 0.
        seconds: from its start to its scores.
        prompt_tokens: that the policy was given, those of each request counted anew.
    """

    task: Task
    weight_version: int
    question_set: str = ""
    sample: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """Set, task and sample: what no two episodes of an evaluation share."""
        return (self.question_set, self.task.task_id, self.sample)

    @property
    def family(self) -> str:
        """The kind of question, as scores are grouped."""
        return family_of(self.task)

    @property
    def is_exact(self) -> bool:
        """Whether the answer equals a gold answer."""
        return self.scores.get("exact_match", 0.0) >= 1.0


def trajectory_record(trajectory: Trajectory) -> TrajectoryRecord:
    """What is kept of a trajectory."""
    return TrajectoryRecord(
        **_shared(trajectory),
        trajectory_id=trajectory.trajectory_id,
        task_id=trajectory.task_id,
        step_rewards=tuple(round(float(reward), 6) for reward in trajectory.step_rewards),
        question=trajectory.question,
        group_id=trajectory.group_id,
        sample_index=trajectory.sample_index,
        purpose=trajectory.purpose.value,
        actor_id=trajectory.actor_id,
        oldest_version=trajectory.oldest_version,
        versions=versions_of_actions(trajectory),
        tokens=tuple(len(segment.token_ids) for segment in trajectory.segments),
        started_at=trajectory.started_at,
        finished_at=trajectory.finished_at,
    )


def evaluation_record(task: Task, trajectory: Trajectory, weight_version: int) -> EvaluationRecord:
    """What is kept of an evaluation's episode."""
    return EvaluationRecord(**_shared(trajectory), task=task, weight_version=weight_version)


def versions_of_actions(trajectory: Trajectory) -> tuple[int, ...]:
    """The lowest weight version that sampled a token of each action, in order."""
    oldest: dict[int, int] = {}
    for segment in trajectory.segments:
        for action in np.unique(segment.action_index[segment.action_index != NOT_AN_ACTION]):
            version = int(segment.versions[segment.action_index == action].min())
            oldest[int(action)] = min(version, oldest.get(int(action), version))
    return tuple(oldest[action] for action in sorted(oldest))


def record_line(record: EpisodeRecord) -> str:
    """The line of a file, with its end."""
    return json_text(dataclasses.asdict(record), readable=True) + "\n"


def read_records(path: Path) -> Iterator[TrajectoryRecord | EvaluationRecord]:
    """The episodes of one file, in order.

    Raises:
        InputError: a line is not an episode; names file and line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield parse_record(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(
                        f"{path} line {number} is no episode of a run or an evaluation: "
                        f"{type(error).__name__}: {error}"
                    ) from error


def read_evaluation(path: Path) -> list[EvaluationRecord]:
    """The episodes of an evaluation; raises as ``read_records``."""
    return [record for record in read_records(path) if isinstance(record, EvaluationRecord)]


def parse_record(line: Mapping[str, Any]) -> TrajectoryRecord | EvaluationRecord:
    """The record of a line; raises what a missing or strange field makes Python raise."""
    steps = {"steps": tuple(_known(Step, step, "tool_calls") for step in line["steps"])}
    if "task" in line:
        task = {"task": _known(Task, line["task"], "answers", "files")}
        return _known(EvaluationRecord, {**line, **steps, **task})
    return _known(TrajectoryRecord, {**line, **steps}, "step_rewards", "versions", "tokens")


def _known(kind: type[T], given: Mapping[str, Any], *lists: str) -> T:
    """A ``kind`` of the fields of ``given`` that it has, with ``lists`` as tuples."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    known = {name: value for name, value in given.items() if name in names}
    return kind(**known | {name: tuple(known[name]) for name in lists if name in known})


def _shared(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "outcome": trajectory.outcome.value,
        "answer": trajectory.answer,
        "scores": trajectory.scores,
        "steps": tuple(
            dataclasses.replace(step, seconds=round(step.seconds, 4)) for step in trajectory.steps
        ),
        "failure": trajectory.failure,
        "kernel_level": trajectory.kernel_level,
        "cells_executed": trajectory.cells_executed,
        "tokens_generated": trajectory.tokens_generated,
    }
