"""What is done to the processes of a run, and when: a function of a seed. Pure.

``schedule_of(N)`` is always the same; ``LZERO_FAULTS_SEED=N`` has the suite play it alone.
"""

import random
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

Role = Literal["actor", "kernels", "judge", "server", "engine", "learner", "starter", "disk"]
Kind = Literal["kill", "pause", "cut", "delay", "replay", "full", "slow"]

SHORT = 12
"""Schedules that are played with every change."""

ANY: tuple[tuple[Role, Kind], ...] = (
    ("actor", "kill"), ("learner", "kill"), ("starter", "kill"), ("disk", "full"),
    ("actor", "cut"), ("actor", "replay"), ("learner", "pause"), ("actor", "pause"),
    ("disk", "slow"), ("actor", "delay"), ("starter", "pause"),
)  # fmt: skip
"""The connections of actors are those with the coordinator."""
WHOLE: tuple[tuple[Role, Kind], ...] = (
    ("kernels", "kill"), ("server", "kill"), ("judge", "kill"), ("server", "cut"),
    ("kernels", "pause"), ("server", "replay"), ("judge", "pause"), ("server", "pause"),
    ("server", "delay"),
)  # fmt: skip
"""What only whole actors have; the connections are those of actors with the policy server."""
LASTING = ("pause", "delay", "full", "slow")
LONGEST_S = 2.5
"""Longer than an actor may be silent (``SILENCE_S``), so that some lose their leases by it."""
SILENCE_S = 1.5


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to whom.

    Attributes:
        after: steps that have been trained before.
        role: whose process, connection or disk.
        kind: SIGKILL; SIGSTOP, and SIGCONT later; a connection cut, held up, or opened once more
            with the bytes of an earlier one; a disk without room, or one that takes its time.
        seconds: how long it lasts, where it lasts.
    """

    after: int
    role: Role
    kind: Kind
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A run, and what is done to it.

    Attributes:
        whole: its actors have kernels, judges and a policy server that plays a script; else what
            they make is made up.
        twice: actors deliver everything twice.
        actors: processes; more than one only where they are not whole.
        bound: versions that an action may lag behind.
        steps: of the run.
        faults: in order.
    """

    seed: int
    whole: bool
    twice: bool
    actors: int
    bound: int
    steps: int
    faults: tuple[Fault, ...]

    def has(self, kind: Kind) -> bool:
        """Whether something of the kind is done."""
        return any(fault.kind == kind for fault in self.faults)

    @property
    def apart(self) -> int:
        """Steps from one moment to the next: something is begun between that was not before."""
        return self.bound + 3

    def moments(self) -> list[tuple[Fault, ...]]:
        """The faults, those together that are done at once."""
        return [tuple(some) for _, some in groupby(self.faults, lambda fault: fault.after)]


def schedule_of(seed: int) -> Schedule:
    """The schedule of a seed: the first ``SHORT`` have one moment, every fourth is of a whole run.

    The first fault of each is the next one of its list; all else is drawn.
    """
    chance = random.Random(f"faults {seed}")
    whole = seed % 4 == 3
    kinds = (*WHOLE, *ANY) if whole else ANY
    first = kinds[(seed // 4 if whole else seed - seed // 4) % len(kinds)]
    empty = Schedule(
        seed=seed,
        whole=whole,
        twice=not whole and chance.random() < 0.3,
        actors=1 if whole else chance.randint(1, 2),
        bound=chance.randint(0, 2),
        steps=0,
        faults=(),
    )
    count = 1 if seed < SHORT else chance.randint(1, 3)
    faults = [
        fault
        for number in range(count)
        for fault in _moment(chance, 1 + number * empty.apart, kinds, None if number else first)
    ]
    return replace(empty, steps=2 + count * empty.apart, faults=tuple(faults))


REAL: tuple[tuple[Role, Kind], ...] = (
    ("actor", "kill"), ("kernels", "kill"), ("server", "kill"), ("engine", "kill"),
    ("learner", "kill"), ("starter", "kill"), ("actor", "pause"), ("server", "pause"),
    ("engine", "pause"), ("learner", "pause"), ("starter", "pause"), ("kernels", "pause"),
)  # fmt: skip
"""What is done to a run with real policy servers and a learner that trains."""


def real_faults(seed: int, *, steps: int, count: int = 3, longest_s: float) -> list[Fault]:
    """What is done to such a run of so many ``steps``, while episodes are still to be begun."""
    chance = random.Random(f"real faults {seed}")
    moments = sorted(chance.sample(range(1, steps - 6), count))
    return [
        Fault(
            after=after,
            role=role,
            kind=kind,
            seconds=round(chance.uniform(0.5, longest_s), 1) if kind in LASTING else 0.0,
        )
        for after, (role, kind) in zip(moments, chance.sample(REAL, count), strict=True)
    ]


def _moment(
    chance: random.Random,
    after: int,
    kinds: tuple[tuple[Role, Kind], ...],
    first: tuple[Role, Kind] | None,
) -> list[Fault]:
    """One fault, or two at once; who starts everything is killed alone."""
    first = first or chance.choice(kinds)
    if first == ("starter", "kill") or chance.random() < 0.6:
        return [_fault(chance, after, first)]
    others = [what for what in kinds if what[0] != first[0] and what != ("starter", "kill")]
    return [_fault(chance, after, what) for what in (first, chance.choice(others))]


def _fault(chance: random.Random, after: int, what: tuple[Role, Kind]) -> Fault:
    role, kind = what
    seconds = round(chance.uniform(0.1, LONGEST_S), 2) if kind in LASTING else 0.0
    return Fault(after=after, role=role, kind=kind, seconds=seconds)
