"""Credit: how many leases may be out over all sessions together, by what policy servers bear.

Pure: no clock and no I/O; the coordinator tells what is out, the roster what servers say. Sessions
say how much each can hold (``actors.episodes``). Where all of that is under way and servers lack
room for it, they compute what they had already computed again (preemption), or keep it in a queue,
where it only grows old and holds kernels. Whether fewer leases are better is not to be seen from
that: where computing again is cheap, many at once are worth it. So it is tried, and what servers
really sample decides: tokens per second at work, without pauses and idling.

A limit is measured in windows, in each of which as many leases end as are out. After a window in
which servers were in trouble (they preempted, or more waited all the time than a margin), fewer
leases are tried; after one in which work was held back by the limit alone, more. Before a new limit
is measured, what is out falls to it and turns over once. Fewer are kept if the rate did not fall,
more if it rose, or if servers bear them without trouble. What is kept is tried further; what is not
is taken back, and the next try, the other way if there is one, comes later each time.

What always holds, after any history of events (tests/unit/test_credit.py plays random ones):

* The limit is between the floor and what sessions ask for. The floor is the size of a group, which
  can always be under way as a whole: the members of a group wait for each other. There is none for
  each session: it is servers that are spared, and an actor without a lease loses nothing.
* Without trouble it never limits. It falls below what was kept before only after a window with
  trouble, and stays there only if the rate in a later window was as good.
* Servers that are others than before, or count from the beginning, end what is being tried: what
  was kept holds, and is measured again.
* With calm, work held back and leases that end it reaches the top in a bounded number of windows.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from learner.coordination.roster import LiveServer

log = logging.getLogger(__name__)

_STEP, _FINE_STEP = 3 / 4, 7 / 8
"""Fewer leases as a part of those before, or those before as a part of more: large enough to be
seen through the noise. The fine one is for tries after one that was worse: they cost less."""
_TIE = 1 / 64
"""Part of the rate that may be lost by fewer leases, and has to be won by more: below it is noise,
and fewer are less old and need fewer kernels."""
_MARGIN = 1 / 4
"""Requests that may wait for each sequence that is sampled: they keep the server busy."""
_REPORTS = 6
"""Of each server in a window, at least: where leases are short, it lasts longer than one round."""
_LONGEST = 16
"""Windows between two tries at most. A try lasts two or three and costs some percent of the rate
while it lasts, so that all of them cost about one."""


@dataclass(slots=True)
class _Window:
    """What servers have done since so many leases had ended."""

    began: int
    most_out: int
    reports: int = 0
    tokens: int = 0
    seconds: float = 0.0
    has_preempted: bool = False
    has_queued: bool = True
    """More waited than the margin, in all reports."""
    is_held_back: bool = False

    @property
    def is_troubled(self) -> bool:
        return self.has_preempted or self.has_queued


@dataclass(frozen=True, slots=True)
class _Kept:
    """What holds if what is being tried turns out to be worse: a limit and its rate."""

    limit: int | None
    rate: float


class Credit:
    """Of one coordinator; thread-safe where that is."""

    def __init__(self, *, floor: int) -> None:
        """No limit, and never one below ``floor`` leases."""
        self._floor = floor
        self._limit: int | None = None
        self._kept: _Kept | None = None
        """Where something else is being tried."""
        self._heard: dict[tuple[str, int], LiveServer] = {}
        self._window: _Window | None = None
        self._out = self._ended = 0
        self._begins_at: int | None = None
        """Leases that have to end before the next window begins; None: too many are out still."""
        self._wait = self._pause = 1
        """Windows before the next try, and after the next one that is worse."""
        self._is_upwards = False
        """The way of the next try, if there are both."""

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
        self._out, self._ended = out, ended
        if self._begins_at is None and (self._limit is None or out <= self._limit):
            self._begins_at = ended + out
        if self._window is not None:
            self._window.most_out = max(self._window.most_out, out)
            self._window.is_held_back |= held_back

    def hear(self, servers: Sequence[LiveServer], *, asked: int) -> None:
        """What all servers that answer have said last."""
        before, self._heard = self._heard, {(one.name, one.life): one for one in servers}
        if before.keys() != self._heard.keys() or any(
            _is_new(before[key], now) for key, now in self._heard.items()
        ):
            self._give_up()
        elif self._window is None:
            self._begin_window()
        else:
            self._take(self._window, before)
            if self._is_over(self._window):
                self._decide(self._window, asked)

    def _begin_window(self) -> None:
        if self._begins_at is not None and self._ended >= self._begins_at:
            self._window = _Window(began=self._ended, most_out=self._out)

    def _take(self, window: _Window, before: dict[tuple[str, int], LiveServer]) -> None:
        told = [(before[key].load, now) for key, now in self._heard.items()
                if now.reports != before[key].reports]  # fmt: skip
        for was, now in told:
            window.reports += 1
            window.tokens += now.load.sampled - was.sampled
            window.seconds += now.load.busy_s - was.busy_s
            window.has_preempted |= now.load.preemptions > was.preemptions
        loads = [server.load for server in self._heard.values()]
        running = sum(load.running for load in loads)
        window.has_queued &= sum(load.waiting for load in loads) > ceil(running * _MARGIN)

    def _is_over(self, window: _Window) -> bool:
        has_turned_over = self._ended - window.began >= window.most_out
        is_told = window.reports >= _REPORTS * len(self._heard)
        return has_turned_over and is_told and window.seconds > 0

    def _decide(self, window: _Window, asked: int) -> None:
        rate = window.tokens / window.seconds
        self._wait -= 1
        if self._kept is not None and not self._settle(self._kept, window, rate):
            return
        self._begin_window()
        if self._wait <= 0:
            self._try(window, rate, asked)

    def _settle(self, kept: _Kept, window: _Window, rate: float) -> bool:
        """Keep what was tried, or take it back; whether it is kept."""
        self._kept, tried = None, self._limit
        is_less = kept.limit is None or (tried is not None and tried < kept.limit)
        least = kept.rate * (1 - _TIE if is_less else 1 + _TIE)
        is_good = rate >= least or not (is_less or window.is_troubled)
        if is_good:
            self._wait, self._pause = 0, 1
        else:
            self._limit, self._is_upwards = kept.limit, is_less
            self._pause = self._wait = min(2 * self._pause, _LONGEST)
            self._turn_over()
        log.info(
            "other leases at once were tried: limit=%s tokens_s=%.0f were=%s tokens_s=%.0f is=%s",
            tried, rate, kept.limit, kept.rate, self._limit,
        )  # fmt: skip
        return is_good

    def _try(self, window: _Window, rate: float, asked: int) -> None:
        """Fewer leases or more, where there is a reason."""
        under_way = window.most_out if self._limit is None else min(window.most_out, self._limit)
        step = _STEP if self._pause == 1 else _FINE_STEP
        fewer = max(self._floor, int(under_way * step))
        may_fall = window.is_troubled and fewer < under_way
        may_rise = self._limit is not None and window.is_held_back
        if not (may_fall or may_rise):
            return
        self._kept = _Kept(self._limit, rate)
        if may_fall and not (may_rise and self._is_upwards):
            self._limit = fewer
        else:
            more = ceil(self.limit(asked) / step)
            self._limit = more if more < asked else None
        self._turn_over()

    def _turn_over(self) -> None:
        self._window = self._begins_at = None

    def _give_up(self) -> None:
        """What is being tried cannot be compared any more."""
        if self._kept is not None:
            self._limit, self._kept = self._kept.limit, None
        self._turn_over()


def _is_new(before: LiveServer, now: LiveServer) -> bool:
    """Whether a server has begun to count again."""
    was, load = before.load, now.load
    return load.preemptions < was.preemptions or load.sampled < was.sampled
