"""Task type ``date``."""

from collections.abc import Mapping

from actors.rewards.dates import parse_date, same_date
from actors.rewards.task_types import TaskType
from common.wire.records import Task


class Date(TaskType):
    """``date``: a date in any order and form; ``actors/rewards/dates.py`` says which are read."""

    measures = ("exact_match",)

    def check(self, task: Task) -> None:
        """Refuse a task none of whose gold answers is a date."""
        if not task.answers:
            raise ValueError("a task of kind 'date' needs at least one gold answer")
        if not any(map(self.can_match, task.answers)):
            raise ValueError(
                f"gold answer {task.answers[0][:60]!r} is not a date such as 3 March 1990, "
                f"1990-03-03, March 1990 or 1990"
            )

    def can_match(self, gold: str) -> bool:
        """Whether a gold answer is a date."""
        return parse_date(gold) is not None

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """1 if the answer is a date that equals a gold one."""
        return {"exact_match": float(any(same_date(answer, gold) for gold in task.answers))}
