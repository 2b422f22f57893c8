"""Whose turn it is to be killed, and who still recovers from that. Pure: times are arguments.

What always holds (tests/unit/test_chaos.py): who was killed is not killed again before it works,
nor is who starts with it, which has never worked then and would end the run; and there are at least
``every_s`` seconds between two kills.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a run's own records say of it.

    Attributes:
        step: the last that was recorded; 0 for none.
        begun_at: when the episode that was begun last, of those that are in, was begun; seconds
            since 1970, 0 for none.
    """

    step: int
    begun_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """A process that was killed: at ``at``, seconds since 1970, and after which step."""

    role: str
    at: float
    step: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """A role works again, so many seconds after it was killed."""

    role: str
    seconds: float


STEPPING = ("learner", "starter")
"""Work again once a step is recorded; others once an episode is in that was begun since."""


STARTS_WITH = {
    "actor": ("kernels",),
    "server": ("engine",),
    "starter": ("actor", "kernels", "server", "engine", "learner"),
}
"""Who else has to start where this one was killed."""


class Turns:
    """The kills of one run."""

    def __init__(self, *, seed: int, every_s: float, began: float) -> None:
        """The first is ``every_s`` after ``began``, seconds since 1970."""
        self._chance = random.Random(f"chaos {seed}")
        self._every_s, self._last = every_s, began
        self._recovering: dict[str, Kill] = {}
        self.kills: list[Kill] = []
        self.recoveries: list[Recovery] = []

    @property
    def recovering(self) -> frozenset[str]:
        """Who was killed and does not work again yet."""
        return frozenset(self._recovering)

    def next(self, there: Collection[str], *, now: float) -> str | None:
        """Whom of those that are ``there`` to kill now; None for nobody."""
        free = sorted(set(there) - self.recovering - self._starting())
        if now - self._last < self._every_s or not free:
            return None
        return self._chance.choice(free)

    def _starting(self) -> set[str]:
        return {part for role in self._recovering for part in STARTS_WITH.get(role, ())}

    def killed(self, kill: Kill) -> None:
        """Somebody has been killed."""
        self._last = kill.at
        self._recovering[kill.role] = kill
        self.kills.append(kill)

    def look(self, progress: Progress, *, now: float) -> list[Recovery]:
        """Who works again, by the records as they are ``now``."""
        back = [kill for kill in self._recovering.values() if _works(kill, progress)]
        found = [Recovery(kill.role, now - kill.at) for kill in back]
        for kill in back:
            del self._recovering[kill.role]
        self.recoveries += found
        return found


def _works(kill: Kill, progress: Progress) -> bool:
    if kill.role in STEPPING:
        return progress.step > kill.step
    return progress.begun_at > kill.at
