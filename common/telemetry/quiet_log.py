"""Log lines that a hostile or broken peer can cause: at most one of a kind every few seconds."""

import logging
import time
from collections.abc import Callable


class QuietLog:
    """Passes the first line of a kind on, then counts, and says how many it left out."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Pass lines to ``log``, one of each kind per ``every_s`` seconds."""
        self._log, self._every_s, self._clock = log, every_s, clock
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, form: str, *values: object) -> None:
        """Log ``kind form % values``; kinds are few, values may be anything."""
        self._emit(logging.WARNING, kind, form, values, trace=False)

    def exception(self, kind: str, form: str, *values: object) -> None:
        """The same as an error, with the traceback of the exception being handled."""
        self._emit(logging.ERROR, kind, form, values, trace=True)

    def _emit(
        self, level: int, kind: str, form: str, values: tuple[object, ...], *, trace: bool
    ) -> None:
        now = self._clock()
        if now - self._last.get(kind, -self._every_s) < self._every_s:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last[kind] = now
        before = self._left_out.pop(kind, 0)
        since = f" (and {before} more since the last line)" if before else ""
        self._log.log(level, f"{kind} {form}{since}", *values, exc_info=trace)
