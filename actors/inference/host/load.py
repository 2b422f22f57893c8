"""What a policy server has to do, counted from what its scheduler says of itself. Pure.

A pause for new weights puts every sequence that is being sampled back into the queue, to be
computed again under them. vLLM counts that as it counts a sequence that lost its place for want of
cache, when the sequence goes on; here it is neither a preemption nor a request without a place.
"""

import dataclasses

from common.wire.hosting import ServerLoad


class LoadMeter:
    """Keeps the newest load."""

    def __init__(self) -> None:
        """Nothing to do."""
        self.load = ServerLoad()
        self._put_back = 0
        """Sequences that a pause put back, and that have not gone on yet."""

    def scheduled(self, *, running: int, waiting: int, cache_share: float) -> None:
        """What is sampled, and waits, after an iteration of the scheduler."""
        self._put_back = min(self._put_back, running + waiting)
        self.load = dataclasses.replace(
            self.load,
            running=running,
            waiting=max(0, waiting - self._put_back),
            cache_share=cache_share,
        )

    def went_on(self, sequences: int) -> None:
        """So many sequences that had lost their place have one again."""
        lost = max(0, sequences - self._put_back)
        self._put_back -= sequences - lost
        count = self.load.preemptions + lost
        self.load = dataclasses.replace(self.load, preemptions=count)

    def paused(self) -> None:
        """Everything that was being sampled is back in the queue."""
        self._put_back += self.load.running
