"""Task type ``math``."""

from collections.abc import Mapping
from functools import cached_property

from actors.rewards.maths.process import Comparer
from actors.rewards.maths.written import MAX_CHARACTERS, read
from actors.rewards.task_types import TaskType
from common.wire.records import Task


class Mathematics(TaskType):
    """``math``: a value or formula, in LaTeX or as people type it; see ``equal_answers``.

    An answer that cannot be compared within the limits of ``actors/rewards/maths`` is wrong.
    """

    measures = ("exact_match",)

    @cached_property
    def _comparer(self) -> Comparer:
        return Comparer()

    def check(self, task: Task) -> None:
        """Refuse a task none of whose gold answers states anything."""
        if not task.answers:
            raise ValueError("a task of kind 'math' needs at least one gold answer")
        if not any(map(self.can_match, task.answers)):
            raise ValueError(
                f"no gold answer states a value, the first of which is {task.answers[0][:60]!r}: "
                f"they are empty or have more than {MAX_CHARACTERS} characters"
            )

    def can_match(self, gold: str) -> bool:
        """Whether a gold answer states something."""
        return bool(read(gold).body)

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """1 if the answer states what a gold answer does."""
        return {"exact_match": float(self._comparer.equal(answer, task.answers))}
