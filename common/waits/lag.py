"""How long an event loop stands still: the most by which a short sleep in it came late."""

import asyncio
import time

_EVERY_S = 0.1


class LoopLag:
    """Measured by a task of its own, ``run``."""

    def __init__(self) -> None:
        """Nothing was measured yet."""
        self._longest = 0.0

    async def run(self) -> None:
        """Measure without end."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(_EVERY_S)
            self._longest = max(self._longest, time.monotonic() - began - _EVERY_S)

    def take(self) -> float:
        """The longest standstill since the last time, seconds."""
        longest, self._longest = self._longest, 0.0
        return max(0.0, longest)
