"""Credit: how many leases may be out over all sessions together, by what policy servers bear.

Pure: no clock and no I/O; the coordinator tells what is out, the roster what servers say. Sessions
say how much each can hold (``actors.episodes``). Where all of that is under way and servers lack
room for it, they compute what they had already computed again (preemption), or keep it in a queue,
where it only grows old and holds kernels. So the limit follows what came of it, round by round; in
a round every server has said once how it is:

* Sequences lost their place for want of cache: the limit falls from what was out, by an eighth of
  their share, at most by a quarter.
* In a row of reports more waited than a margin: it falls, gently, by half of what was always too
  much.
* Neither, and work was held back by the limit alone: it rises by a fixed step, back to the sum of
  what sessions ask for. What was handed out needs more room the longer it goes on, so a part of
  what is out has to end between two steps; just below where servers lacked room it rises slower.

What always holds, after any history of events (tests/unit/test_credit.py plays random ones):

* The limit is between the floor and what sessions ask for. The floor is the size of a group, which
  can always be under way as a whole: the members of a group wait for each other. There is none for
  each session: it is servers that are spared, and an actor without a lease loses nothing.
* It falls only by what a server said of itself, in this life of it, since what is out had fallen to
  the limit before: once for each effect. A count that is smaller than before is a new beginning.
* Without trouble it never limits. With calm, work held back and leases that end it reaches the top
  in a bounded number of rounds.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

from learner.coordination.roster import LiveServer

log = logging.getLogger(__name__)

_GAIN = 1 / 8
"""Of the share of sequences that lost their place: so much of what is out is too much."""
_MOST = 1 / 4
"""Part of what is out by which the limit falls at most at once."""
_MARGIN = 1 / 4
"""Requests that may wait for each sequence that is sampled: they keep the server busy."""
_ROW = 6
"""Reports in a row of too many waiting."""
_STEPS = 64
"""Rounds with calm and work held back that lead from nothing to the top, without care."""
_NEAR = 7 / 8
"""Of what was out when servers lacked room: from there on the limit rises with care."""
_CARE = 2
"""Rounds for each step, with care."""
_TURNOVER = 1 / 4
"""Part of what may be out that has to end between two steps."""
_PATIENCE = 3
"""Reports of one server after which a round does not wait for the others any more."""


@dataclass(slots=True)
class _Heard:
    """What a server has said in its present life.

    Attributes:
        reports, preemptions: as it said last.
        running: sequences, as it said last.
        in_round: reports that count in this round.
        preempted: sequences that lost their place in this round.
        too_many: requests that waited beyond the margin, by report.
        is_stale: its next report tells also of what was before the limit took effect.
    """

    reports: int
    preemptions: int
    running: int = 0
    in_round: int = 0
    preempted: int = 0
    too_many: deque[int] = field(default_factory=lambda: deque(maxlen=_ROW))
    is_stale: bool = False


class Credit:
    """Of one coordinator; thread-safe where that is."""

    def __init__(self, *, floor: int) -> None:
        """No limit, and never one below ``floor`` leases."""
        self._floor = floor
        self._limit: int | None = None
        self._heard: dict[tuple[str, int], _Heard] = {}
        self._most_out = 0
        """Leases at once since the round began."""
        self._is_held_back = False
        """Whether work was, in this round."""
        self._is_falling = False
        """More is out than the limit, since it fell."""
        self._troubled_at = 0
        """Leases that were out when servers lacked room last; 0 for never."""
        self._calm_rounds = 0
        self._ended = self._ended_before = 0
        """Leases until now, and until the limit rose or fell last."""

    def limit(self, asked: int) -> int:
        """Leases that may be out where sessions ask for so many in all."""
        return asked if self._limit is None else min(asked, self._limit)

    def is_over(self, out: int) -> bool:
        """Whether so many leases are all that servers bear, whatever sessions ask for."""
        return self._limit is not None and out >= self._limit

    def handed_out(self, out: int, *, ended: int, held_back: bool) -> None:
        """So many leases are out now, and so many have ended since the beginning.

        ``held_back``: more would be out, were it not for the limit.
        """
        self._most_out = max(self._most_out, out)
        self._ended = ended
        self._is_held_back |= held_back
        if self._is_falling and self._limit is not None and out <= self._limit:
            self._is_falling, self._ended_before = False, ended
            self._begin_round(out, is_stale=True)

    def hear(self, servers: Sequence[LiveServer], *, out: int, asked: int) -> None:
        """What all servers that answer have said last, while so many leases are out."""
        self._most_out = max(self._most_out, out)
        known = {(server.name, server.life): server for server in servers}
        self._heard = {
            key: self._heard.get(key) or _Heard(server.reports, server.load.preemptions)
            for key, server in known.items()
        }
        for key, heard in self._heard.items():
            if known[key].reports != heard.reports:
                self._take(heard, known[key])
        if self._is_round_over():
            self._decide(asked)
            self._begin_round(out)

    def _take(self, heard: _Heard, server: LiveServer) -> None:
        load = server.load
        preempted = load.preemptions - heard.preemptions
        heard.reports, heard.preemptions = server.reports, load.preemptions
        if self._is_falling or heard.is_stale or preempted < 0:
            heard.is_stale = False
            heard.in_round = heard.preempted = 0
            heard.too_many.clear()
            return
        heard.running = load.running
        heard.preempted += preempted
        heard.too_many.append(max(0, load.waiting - ceil(load.running * _MARGIN)))
        heard.in_round += 1

    def _is_round_over(self) -> bool:
        told = [heard.in_round for heard in self._heard.values()]
        return bool(told) and (min(told) > 0 or max(told) >= _PATIENCE)

    def _begin_round(self, out: int, *, is_stale: bool = False) -> None:
        self._most_out, self._is_held_back = out, False
        for heard in self._heard.values():
            heard.in_round = heard.preempted = 0
            heard.is_stale |= is_stale

    def _decide(self, asked: int) -> None:
        told = [heard for heard in self._heard.values() if heard.in_round]
        under_way = self._most_out if self._limit is None else min(self._most_out, self._limit)
        if any(heard.preempted for heard in told):
            share = fmean(heard.preempted / max(1, heard.running) for heard in told)
            self._troubled_at = under_way
            self._fall(under_way, by=ceil(under_way * min(_MOST, share * _GAIN)))
        elif too_many := sum(min(h.too_many) for h in told if len(h.too_many) == _ROW):
            self._fall(under_way, by=ceil(too_many / 2))
        elif self._is_held_back and not any(heard.too_many[-1] for heard in told):
            self._rise(asked)

    def _fall(self, under_way: int, *, by: int) -> None:
        limit = max(self._floor, under_way - by)
        if limit >= under_way:
            return
        self._limit, self._is_falling = limit, True
        self._calm_rounds, self._ended_before = 0, self._ended
        log.info("servers lack room: fewer leases at once most=%d were=%d", limit, under_way)

    def _rise(self, asked: int) -> None:
        limit = self.limit(asked)
        self._calm_rounds += 1
        is_near = self._troubled_at * _NEAR <= limit <= self._troubled_at
        needed = _CARE if is_near else 1
        turned_over = self._ended - self._ended_before >= ceil(limit * _TURNOVER)
        if self._calm_rounds < needed or not turned_over:
            return
        limit += ceil(asked / _STEPS)
        self._limit = limit if limit < asked else None
        self._calm_rounds, self._ended_before = 0, self._ended
