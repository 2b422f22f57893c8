"""When a checkpoint is due: by steps or by minutes, whichever comes first. Times are seconds."""

from math import inf

RETRY_S = 60.0
"""After a save that failed the next is tried this much later, if none is due before."""


class SaveSchedule:
    """Decides when to save; knows nothing of how."""

    def __init__(self, *, steps: int, minutes: float, now: float) -> None:
        """Due every ``steps`` steps, and ``minutes`` after the save before; 0 minutes for never."""
        self._steps = steps
        self._every_s = minutes * 60 or inf
        self._next_s = now + self._every_s

    def is_due(self, step: int, now: float) -> bool:
        """Whether the state after ``step`` steps should be saved."""
        return step % self._steps == 0 or now >= self._next_s

    def begun(self, now: float) -> None:
        """A save has begun."""
        self._next_s = now + self._every_s

    def failed(self, now: float) -> None:
        """A save could not be written."""
        self._next_s = min(self._next_s, now + RETRY_S)
