"""Task type ``judged``."""

from collections.abc import Mapping

from actors.rewards.grading import MAX_CHARACTERS, Grade, grading_prompt, read_grade
from actors.rewards.means import Means
from actors.rewards.task_types import MeasuredWithMeans
from common.errors import PluginError
from common.wire.records import Task

_ASKED = 3
"""How often a model is asked that gives no grade."""


class Judged(MeasuredWithMeans):
    """``judged``: a model says whether an answer is right, wrong or not attempted."""

    measures = ("exact_match", "attempted", "wrong")
    most_characters = MAX_CHARACTERS

    def check(self, task: Task) -> None:
        """Refuse a task without a reference answer."""
        if not any(answer.strip() for answer in task.answers):
            raise ValueError("a task of kind 'judged' needs at least one gold answer")

    async def measure_with(self, task: Task, answer: str, means: Means) -> Mapping[str, float]:
        """Ask the model; an answer that is blank is not attempted."""
        grade = Grade.NOT_ATTEMPTED if not answer.strip() else None
        ask = means.need_grader("judged")
        prompt = grading_prompt(task.question, task.answers, answer)
        for _ in range(_ASKED):
            if grade is None:
                grade = read_grade(reply := await ask(prompt))
        if grade is None:
            raise PluginError(
                f"kind 'judged' of task {task.task_id!r}: the model was to reply A, B or C and "
                f"replied {reply[:80]!r}, {_ASKED} times"
            )
        return {
            "exact_match": float(grade is Grade.RIGHT),
            "attempted": float(grade is not Grade.NOT_ATTEMPTED),
            "wrong": float(grade is Grade.WRONG),
        }
