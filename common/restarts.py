"""Whether and when a process that ended is started again. Pure: the time is an argument, seconds.

What always holds, after any history of ends (tests/unit/test_restarts.py):

* A process that never worked is not started again: it would only fail again.
* In no hour is one started again more than ``BUDGET`` times; the one after that is given up.
* Each wait is twice the one before, from ``FIRST_S`` to at most ``LONGEST_S``; an hour without an
  end begins anew.
"""

from collections import deque

BUDGET = 6
"""Restarts of one process in any hour."""
HOUR_S = 3600.0
FIRST_S, LONGEST_S = 1.0, 60.0


class RestartBook:
    """The restarts of one process."""

    def __init__(self) -> None:
        """It has never ended."""
        self._begun: deque[float] = deque()

    def ended(self, now: float, *, has_worked: bool) -> float | None:
        """It ended unexpectedly; seconds until it is to be started again, None to give up."""
        while self._begun and now - self._begun[0] >= HOUR_S:
            self._begun.popleft()
        if not has_worked or len(self._begun) >= BUDGET:
            return None
        wait_s = min(LONGEST_S, FIRST_S * 2.0 ** len(self._begun))
        self._begun.append(now + wait_s)
        return wait_s

    @property
    def in_last_hour(self) -> int:
        """Restarts in the hour before the last end, with the one that follows it."""
        return len(self._begun)
