"""Which requests of which peer are under way; one that is given up, or lost, ends here. No I/O.

What always holds: a request that was begun is in the book until its answer was sent or it was given
up, and sets out to be answered unless it was given up; no peer has more than ``MOST`` of them.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from common.config.processes import MAX_CREDIT

MOST = MAX_CREDIT
"""Requests of one peer under way: an actor has one for each of its episodes."""


_CLEARED = "the engine has ended"


def is_cleared(error: asyncio.CancelledError) -> bool:
    """Whether the work was stopped by ``Desk.clear``."""
    return error.args == (_CLEARED,)


class Desk:
    """Tasks by peer and number."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._tasks: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._counts: Counter[bytes] = Counter()

    def is_full(self, peer: bytes, number: int) -> bool:
        """Whether a request would be one too many, or one of its number is under way."""
        return self._counts[peer] >= MOST or (peer, number) in self._tasks

    def begin(self, peer: bytes, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Work on a request of ``peer``, which is not full."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[peer, number] = task
        self._counts[peer] += 1
        task.add_done_callback(lambda _: self._end(peer, number))

    def give_up(self, peer: bytes, number: int) -> None:
        """Stop the work on a request; nothing where it is over."""
        if (task := self._tasks.get((peer, number))) is not None:
            task.cancel()

    def clear(self) -> None:
        """Stop all work: ``is_cleared`` says of the exception that it is this, and no giving up.

        Work that has not set out yet does so first: cancelled before, a coroutine says nothing.
        """
        loop = asyncio.get_running_loop()
        for task in self._tasks.values():
            loop.call_soon(task.cancel, _CLEARED)

    def _end(self, peer: bytes, number: int) -> None:
        del self._tasks[peer, number]
        self._counts[peer] -= 1
        if not self._counts[peer]:
            del self._counts[peer]
