"""What a policy server has to do, counted from what its scheduler says of itself. Pure.

A pause for new weights puts every sequence that is being sampled back into the queue, to be
computed again under them. vLLM counts that as it counts a sequence that lost its place for want of
cache, when the sequence goes on; here it is neither a preemption nor a request without a place. The
pause is no time at work; computing again after it is. Times are arguments, in seconds.
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
        self._requests = 0
        self._is_paused = False
        self._counted_until = 0.0

    def asked(self, *, now: float) -> None:
        """There is one more request."""
        self._pass_time(now)
        self._requests += 1

    def answered(self, *, now: float) -> None:
        """There is one less, whatever became of it."""
        self._pass_time(now)
        self._requests -= 1

    def scheduled(self, *, running: int, waiting: int, cache_share: float, now: float) -> None:
        """What is sampled, and waits, after an iteration of the scheduler."""
        self._pass_time(now)
        self._put_back = min(self._put_back, running + waiting)
        self.load = dataclasses.replace(
            self.load,
            running=running,
            waiting=max(0, waiting - self._put_back),
            cache_share=cache_share,
        )

    def sampled(self, tokens: int) -> None:
        """An iteration gave so many tokens."""
        self.load = dataclasses.replace(self.load, sampled=self.load.sampled + tokens)

    def went_on(self, sequences: int) -> None:
        """So many sequences that had lost their place have one again."""
        lost = max(0, sequences - self._put_back)
        self._put_back -= sequences - lost
        count = self.load.preemptions + lost
        self.load = dataclasses.replace(self.load, preemptions=count)

    def paused(self, *, now: float) -> None:
        """Everything that was being sampled is back in the queue."""
        self._pass_time(now)
        self._is_paused = True
        self._put_back += self.load.running

    def resumed(self, *, now: float) -> None:
        """The pause is over."""
        self._pass_time(now)
        self._is_paused = False

    def _pass_time(self, now: float) -> None:
        if self._requests and not self._is_paused:
            busy_s = self.load.busy_s + now - self._counted_until
            self.load = dataclasses.replace(self.load, busy_s=busy_s)
        self._counted_until = now
