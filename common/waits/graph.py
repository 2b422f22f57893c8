"""From what everything waits for to what everything waits for in the end. Pure.

What always holds (tests/unit/test_waits_graph.py plays random graphs, also with circles):

* The way ends: no place is visited twice.
* Each step takes the oldest wait of the place it is at; one that says only who holds something
  (``is_last_resort``) where there is no other.
* A place that says nothing any more is a root, whatever it said before.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from common.waits.catalogue import CATALOGUE
from common.waits.records import Node, Waiting


class ChainEnd(StrEnum):
    """Why the way ends where it does."""

    SILENT = "silent"
    """It has said nothing, or not answered, for too long."""
    CIRCLE = "circle"
    """It waits, by others, for itself."""
    AT_WORK = "at_work"
    """It names nothing that it waits for."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Who says nothing: for how long, and in which words."""

    node: Node
    seconds: float
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitGraph:
    """All that waits, each with its ``who``; who is silent; and what is known of others."""

    waits: Sequence[Waiting]
    silent: Mapping[Node, Quiet] = field(default_factory=dict)
    notes: Mapping[Node, str] = field(default_factory=dict)
    now: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """The waits from ``start`` to ``root``, in order."""

    start: Node
    waits: tuple[Waiting, ...]
    root: Node
    ending: ChainEnd


def why(graph: WaitGraph, start: Node) -> Chain:
    """Follow the oldest waits from ``start`` to their root."""
    by_who: defaultdict[Node, list[Waiting]] = defaultdict(list)
    for wait in graph.waits:
        if wait.who is not None:
            by_who[wait.who].append(wait)
    place, way, visited = start, list[Waiting](), {start}
    while place not in graph.silent and by_who[place]:
        wait = max(by_who[place], key=_urgency)
        way.append(wait)
        place = wait.on
        if place in visited:
            return Chain(start=start, waits=tuple(way), root=place, ending=ChainEnd.CIRCLE)
        visited.add(place)
    ending = ChainEnd.SILENT if place in graph.silent else ChainEnd.AT_WORK
    return Chain(start=start, waits=tuple(way), root=place, ending=ending)


def _urgency(wait: Waiting) -> tuple[bool, float, str, str]:
    """Of two waits the one to follow is larger; names decide between equals."""
    is_first = not CATALOGUE[wait.kind].is_last_resort
    return is_first, wait.seconds, wait.on.part, wait.on.name
