"""Processes that an actor starts again when they end: how often, and who hears of it.

Each is started again as ``common.restarts`` says: later each time, so often an hour. One that is
given up ends the actor, which hands back what it holds; whoever watches over actors goes on there.
"""

import logging
import time
from collections.abc import Callable

from common.errors import MachineError
from common.restarts import BUDGET, RestartBook

log = logging.getLogger(__name__)


class Mending:
    """What is said of all of them; one object for each actor."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        """``tell`` gets a sentence for each that is started again, as the log does."""
        self._tell = tell
        self.given_up: MachineError | None = None
        """Why the actor cannot go on."""
        self.on_given_up: Callable[[], None] = lambda: None
        """Called when that is known."""

    def again(self, text: str) -> None:
        """Something is started again."""
        log.warning("%s", text)
        self._tell(text)

    def give_up(self, error: MachineError) -> None:
        """Something is not started again."""
        self.given_up = error
        self.on_given_up()


class MendedPart:
    """The restarts of one of them."""

    def __init__(self, name: str, mending: Mending | None = None) -> None:
        """``name`` begins the sentences about it."""
        self._name = name
        self._mending = mending or Mending()
        self._book = RestartBook()
        self._last: MachineError | None = None

    def ended(self, cause: str) -> float:
        """It ended, or did not start; seconds until it is to be started again.

        Raises:
            MachineError: not any more; names what it ended of.
        """
        if self._last is not None:
            raise self._last
        wait_s = self._book.ended(time.monotonic(), has_worked=True)
        if wait_s is None:
            self._last = MachineError(
                f"{self._name} {cause}, after {self._book.in_last_hour} restarts within an hour"
            )
            self._mending.give_up(self._last)
            raise self._last
        self._mending.again(
            f"{self._name} {cause}; it is started again in {wait_s:.0f} s (restart "
            f"{self._book.in_last_hour} of at most {BUDGET} in an hour)"
        )
        return wait_s
