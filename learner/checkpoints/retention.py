"""Which checkpoints stay: the newest, one in every so many steps, and the best. Nothing is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """What is kept.

    Attributes:
        newest: how many of the newest; one at least stays whatever this says.
        every: the first checkpoint at or after each multiple of so many steps stays; 0 for none.
        scores: held-out score by step; the highest stays, of equals the newest.
    """

    newest: int
    every: int = 0
    scores: Mapping[int, float] = field(default_factory=dict)


def kept(steps: Iterable[int], keep: Keep) -> frozenset[int]:
    """The steps whose checkpoints stay, of those that there are.

    A resume takes the newest, or the one before it if that is damaged: both are among ``newest``.
    Whatever stays now stays the next time, too, unless it was one of ``newest`` or of a lower score
    alone; so deciding again after each save loses nothing.
    """
    there = sorted(set(steps))
    stay = set(there[-max(1, keep.newest) :])
    if keep.every:
        first: dict[int, int] = {}
        for step in there:
            first.setdefault(step // keep.every, step)
        stay |= {step for turn, step in first.items() if turn}
    if scored := [step for step in there if step in keep.scores]:
        stay.add(max(scored, key=lambda step: (keep.scores[step], step)))
    return frozenset(stay)
