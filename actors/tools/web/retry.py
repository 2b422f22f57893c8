"""When a request is tried again, and how fast requests follow each other."""

import asyncio
import email.utils
import random
import time
from collections import defaultdict

LONGEST_WAIT_S = 30.0
"""A server that asks for a longer pause than this is given up."""

_HOSTS_KEPT = 1000


class TransientError(Exception):
    """An attempt failed in a way that another one may not.

    Attributes:
        wait_s: pause the server asked for, or None.
        is_timeout: nothing came in time.
    """

    def __init__(
        self, message: str, *, wait_s: float | None = None, is_timeout: bool = False
    ) -> None:
        """Keep what happened."""
        super().__init__(message)
        self.wait_s = wait_s
        self.is_timeout = is_timeout


def backoff(attempt: int, *, first_s: float) -> float:
    """Seconds before the next try: doubled per attempt (from 1), times a random 0.5 to 1.5."""
    return float(min(LONGEST_WAIT_S, first_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5))


def retry_after(header: str | None, *, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as a number or as a date.

    Args:
        header: its text, or None.
        now: seconds since the epoch.

    Returns:
        At least 0, or None where the header says nothing that can be understood.
    """
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever a strange date raises
        return None


class Pace:
    """At most so many requests per second to each host, in the order they came.

    A request that is given up while it waits leaves no gap.
    """

    def __init__(self, requests_per_s: float) -> None:
        """Space requests by ``1 / requests_per_s`` seconds; 0 for no limit."""
        self._interval = 1 / requests_per_s if requests_per_s > 0 else 0.0
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._next: dict[str, float] = {}

    async def turn(self, host: str) -> None:
        """Wait until the next request to ``host`` may start."""
        if not self._interval:
            return
        if len(self._locks) > _HOSTS_KEPT:
            self._forget()
        async with self._locks[host]:
            await asyncio.sleep(max(0.0, self._next.get(host, 0.0) - time.monotonic()))
            self._next[host] = time.monotonic() + self._interval

    def _forget(self) -> None:
        """Drop hosts whose turn is over; an agent may name any number of them."""
        now = time.monotonic()
        for host, lock in list(self._locks.items()):
            if not lock.locked() and self._next.get(host, 0.0) < now:
                del self._locks[host]
                self._next.pop(host, None)
