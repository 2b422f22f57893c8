"""Task type ``code``."""

from collections.abc import Mapping

from actors.rewards.means import Means
from actors.rewards.programs.program import MAX_CHARACTERS, check_program, program_of
from actors.rewards.programs.sandboxed import passes
from actors.rewards.task_types import MeasuredWithMeans
from common.wire.records import Task


class Code(MeasuredWithMeans):
    """``code``: a program that passes unit tests; ``actors/rewards/programs`` says how."""

    measures = ("exact_match",)
    most_characters = MAX_CHARACTERS

    def check(self, task: Task) -> None:
        """Refuse a task without tests, or with some that are no Python."""
        check_program(task)

    async def measure_with(self, task: Task, answer: str, means: Means) -> Mapping[str, float]:
        """1 if all tests pass in fresh sandboxes."""
        sandboxes = means.need_sandboxes("code")
        return {"exact_match": float(await passes(program_of(task, answer), sandboxes))}
