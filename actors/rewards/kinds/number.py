"""Task type ``number``."""

import math
from collections.abc import Mapping

from actors.rewards.numeric import equal_numbers, parse_number
from actors.rewards.task_types import TaskType
from common.wire.records import Task


class Number(TaskType):
    """``number``: a numeric answer; ``actors/rewards/numeric.py`` says how numbers are written.

    ``details["tolerance"]`` is the relative difference that is tolerated, 1e-6 unless given, and
    ``details["absolute_tolerance"]`` the absolute one, 0 unless given.
    """

    measures = ("exact_match",)

    def check(self, task: Task) -> None:
        """Refuse a task none of whose gold answers is a number, and tolerances that are none."""
        if not task.answers:
            raise ValueError("a task of kind 'number' needs at least one gold answer")
        if not any(map(self.can_match, task.answers)):
            raise ValueError(f"gold answer {task.answers[0][:60]!r} is not a number")
        _tolerances(task)

    def can_match(self, gold: str) -> bool:
        """Whether a gold answer is a number."""
        return parse_number(gold) is not None

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """1 if the answer is a number that equals a gold one."""
        relative, absolute = _tolerances(task)
        equal = any(
            equal_numbers(answer, gold, relative=relative, absolute=absolute)
            for gold in task.answers
        )
        return {"exact_match": float(equal)}


def _tolerances(task: Task) -> tuple[float, float]:
    return _tolerance(task, "tolerance", 1e-6), _tolerance(task, "absolute_tolerance", 0.0)


def _tolerance(task: Task, name: str, default: float) -> float:
    text = task.details.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"details['{name}'] must be a number of at least 0, got {text!r}")
    return value
