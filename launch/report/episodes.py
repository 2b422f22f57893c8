"""Reads the episodes that an evaluation leaves: one JSON line each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.evaluation import family_of
from common.wire.records import Step, Task

_STEP_FIELDS = frozenset(field.name for field in fields(Step))
_TASK_FIELDS = frozenset(field.name for field in fields(Task))


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """What happened when a held-out question was asked."""

    task: Task
    outcome: str
    answer: str | None
    scores: Mapping[str, float]
    steps: tuple[Step, ...]
    weight_version: int

    @property
    def family(self) -> str:
        """The kind of question, as scores are grouped."""
        return family_of(self.task)

    @property
    def is_exact(self) -> bool:
        """Whether the answer equals a gold answer."""
        return self.scores.get("exact_match", 0.0) >= 1.0


def read_episodes(path: Path) -> list[Episode]:
    """All episodes of a file, in order."""
    with path.open(encoding="utf-8") as lines:
        return [parse_episode(json.loads(line)) for line in lines if line.strip()]


def parse_episode(record: Mapping[str, Any]) -> Episode:
    """One line of the file; keys that this version does not know are skipped."""
    return Episode(
        task=_parse_task(record["task"]),
        outcome=str(record["outcome"]),
        answer=record["answer"],
        scores=record["scores"],
        steps=tuple(parse_step(step) for step in record["steps"]),
        weight_version=int(record["weight_version"]),
    )


def parse_step(record: Mapping[str, Any]) -> Step:
    """A step as evaluations and the trajectory store write it, also an older version's."""
    known = {name: value for name, value in record.items() if name in _STEP_FIELDS}
    return Step(**{**known, "tool_calls": tuple(record.get("tool_calls", ()))})


def _parse_task(record: Mapping[str, Any]) -> Task:
    known = {name: value for name, value in record.items() if name in _TASK_FIELDS}
    lists = {name: tuple(record.get(name, ())) for name in ("answers", "files")}
    return Task(**{**known, **lists})
