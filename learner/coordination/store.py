"""The trajectory store of a run: append-only JSON lines in parts, limited in size.

``trajectories/part-00000.jsonl`` and so on, one trajectory per line as text (no token ids); see
docs/trajectories.md for the fields. When the limit is reached the oldest part is removed.
"""

import dataclasses
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from common.json_output import json_text
from common.wire.records import NOT_AN_ACTION, Trajectory


def describe(trajectory: Trajectory) -> dict[str, Any]:
    """What the store keeps of a trajectory, as plain JSON values."""
    return {
        "trajectory_id": trajectory.trajectory_id,
        "task_id": trajectory.task_id,
        "question": trajectory.question,
        "group_id": trajectory.group_id,
        "sample_index": trajectory.sample_index,
        "purpose": trajectory.purpose.value,
        "actor_id": trajectory.actor_id,
        "outcome": trajectory.outcome.value,
        "failure": trajectory.failure,
        "answer": trajectory.answer,
        "scores": trajectory.scores,
        "step_rewards": [round(float(reward), 6) for reward in trajectory.step_rewards],
        "oldest_version": trajectory.oldest_version,
        "versions": versions_of_actions(trajectory),
        "tokens": [len(segment.token_ids) for segment in trajectory.segments],
        "tokens_generated": trajectory.tokens_generated,
        "cells_executed": trajectory.cells_executed,
        "kernel_level": trajectory.kernel_level,
        "started_at": trajectory.started_at,
        "finished_at": trajectory.finished_at,
        "steps": [
            dataclasses.asdict(step) | {"seconds": round(step.seconds, 4)}
            for step in trajectory.steps
        ],
    }


def versions_of_actions(trajectory: Trajectory) -> list[int]:
    """The lowest weight version that sampled a token of each action, in order."""
    oldest: dict[int, int] = {}
    for segment in trajectory.segments:
        for action in np.unique(segment.action_index[segment.action_index != NOT_AN_ACTION]):
            version = int(segment.versions[segment.action_index == action].min())
            oldest[int(action)] = min(version, oldest.get(int(action), version))
    return [oldest[action] for action in sorted(oldest)]


class TrajectoryStore:
    """Appends trajectories to the newest part; never rewrites one."""

    def __init__(self, folder: Path, *, limit_bytes: int, parts: int = 16) -> None:
        """Continue after the parts that are there. A part holds ``limit_bytes / parts``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._part_bytes = max(1, limit_bytes // parts)
        self._parts = parts
        numbers = [int(path.stem.removeprefix("part-")) for path in self._existing()]
        self._file = self._open(max(numbers, default=-1) + 1)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line; starts the next part when this one is full."""
        self._file.write(json_text(describe(trajectory), readable=True) + "\n")
        if self._file.tell() >= self._part_bytes:
            self._file.close()
            self._file = self._open(self._number + 1)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _existing(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.jsonl"))

    def _open(self, number: int) -> TextIO:
        self._number = number
        for old in self._existing()[: -(self._parts - 1)]:
            old.unlink()
        file = self._folder / f"part-{number:05d}.jsonl"
        return file.open("a", buffering=1, encoding="utf-8")  # a killed process loses no line
