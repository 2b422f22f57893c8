"""Reads the episodes that an evaluation leaves: one JSON line each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.evaluation import family_of
from common.messages import Step, Task


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
    """One line of the file."""
    task = {**record["task"], "answers": tuple(record["task"]["answers"])}
    return Episode(
        task=Task(**task),
        outcome=str(record["outcome"]),
        answer=record["answer"],
        scores=record["scores"],
        steps=tuple(
            Step(**{**step, "tool_calls": tuple(step.get("tool_calls", ()))})
            for step in record["steps"]
        ),
        weight_version=int(record["weight_version"]),
    )
