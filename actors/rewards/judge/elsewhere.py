"""Measures answers of the types that need sandboxes or a model, before a judge process scores them.

consumes   tasks and submitted answers
produces   measures; None for all other types
waits for  a place, then for sandboxes or the model, both together for at most ``wait_s``
unblocked by  that deadline: an error, which says that the machine or the model is too slow
"""

import asyncio
from collections.abc import Mapping

from actors.rewards.means import Means
from actors.rewards.scorer import void_answer
from actors.rewards.task_types import MeasuredWithMeans, kind_name, task_type
from common.errors import PluginError
from common.plugins import is_plugin
from common.wire.records import Outcome, Task


class Elsewhere:
    """Safe to ask many at once; so many as there are places are measured at a time."""

    def __init__(self, means: Means, *, places: int, wait_s: float) -> None:
        """Measure with these means."""
        self._means, self._wait_s = means, wait_s
        self._places = asyncio.Semaphore(places)

    async def measured(
        self, task: Task, answer: str | None, outcome: Outcome
    ) -> Mapping[str, float] | None:
        """What is measured of an answer; None where its type needs no means, or it does not count.

        Raises:
            LZeroError: it could not be measured, through no fault of the answer.
        """
        kind = None if is_plugin(task.kind) else task_type(task.kind)
        if not isinstance(kind, MeasuredWithMeans) or answer is None or void_answer(outcome):
            return None
        try:
            async with asyncio.timeout(self._wait_s) as limit, self._places:
                return await kind.measure_with(task, answer[: kind.most_characters], self._means)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise PluginError(
                f"{kind_name(task.kind)} of task {task.task_id!r} was not measured within "
                f"{self._wait_s:g} s (transport.lease_grace_s - rewards.timeout_s)"
            ) from error
