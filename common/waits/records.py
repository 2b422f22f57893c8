"""A wait, and what a process says of its waits: frozen, bounded, checked when they are made."""

from dataclasses import dataclass, field
from math import isfinite

from common.waits.catalogue import CATALOGUE, Part, WaitKind

MOST_WAITS = 8
"""In one report; the rest is in its counts."""
MOST_QUEUES = 16
MAX_WORD_CHARACTERS = 240
"""Of a name or a detail; an actor's name and session have at most 200."""
LARGEST_COUNT = 2**53
_KINDS = frozenset(kind.value for kind in WaitKind)


@dataclass(frozen=True, slots=True)
class Node:
    """Something that waits or is waited for; ``name`` is empty where there is only one."""

    part: Part
    name: str = ""

    def __post_init__(self) -> None:
        """Reject a name that nobody of ours has."""
        if len(self.name) > MAX_WORD_CHARACTERS:
            raise ValueError(f"a name has at most {MAX_WORD_CHARACTERS} characters")

    def __str__(self) -> str:
        """How a person calls it: ``actor a2``."""
        return f"{self.part} {self.name}".rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Somebody waits.

    Attributes:
        kind: of the catalogue.
        who: waits; None for the process that says so.
        on: for whom.
        seconds: for how long, when it was said; so that clocks need not agree.
        detail: what else is known.
    """

    kind: WaitKind
    on: Node
    seconds: float
    who: Node | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        """Reject what is not of the catalogue, or no time."""
        if self.on.part is not CATALOGUE[self.kind].on:
            raise ValueError(f"nobody waits for a {self.on.part} by '{self.kind}'")
        if not (isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"a wait has lasted for 0 s or more, got {self.seconds!r}")
        if len(self.detail) > MAX_WORD_CHARACTERS:
            raise ValueError(f"a detail has at most {MAX_WORD_CHARACTERS} characters")


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitReport:
    """What a process says of itself with each sign of life.

    Attributes:
        waits: at most ``MOST_WAITS``, the oldest, and those of its oldest work.
        counts: how many there are of each kind, by its name.
        lag_s: the longest that its event loop stood still since the report before, seconds.
        queues: how much waits where, by names of its own.
    """

    waits: tuple[Waiting, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    lag_s: float = 0.0
    queues: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject what is longer than it may be."""
        if len(self.waits) > MOST_WAITS:
            raise ValueError(f"a report names at most {MOST_WAITS} waits, got {len(self.waits)}")
        if not _KINDS.issuperset(self.counts):
            raise ValueError("counts are of kinds of the catalogue")
        if len(self.queues) > MOST_QUEUES or any(len(name) > 40 for name in self.queues):
            raise ValueError(f"a report has at most {MOST_QUEUES} queues with short names")
        numbers = (*self.counts.values(), *self.queues.values(), self.lag_s)
        if not all(isfinite(number) and 0 <= number <= LARGEST_COUNT for number in numbers):
            raise ValueError("counts, queues and lag are numbers from 0")


def cut(text: str) -> str:
    """A name or detail that is not too long, and can be encoded."""
    return text[:MAX_WORD_CHARACTERS].encode(errors="replace").decode()
