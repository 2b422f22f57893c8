"""Depth: how far ahead of the learner sampling runs, in groups beyond the batch that is waited for.

Pure: the time is an argument, in seconds. What was sampled ahead is trained on by newer weights
than sampled it, so depth costs staleness, of which ``max_staleness`` is the bound and no aim; what
was not sampled ahead may be waited for. Unless it is fixed, depth follows what came of it:

* The learner waits for what was refused: actors with room got no group, now or in any of the
  batches before that what it waits for may have begun in. Each second of refusal explains a second
  of waiting: deeper by the part of a batch that would have been sampled in that time. What was
  refused while the learner trained counts, too: where training and sampling take turns at being
  the slower one, each idles while the other does not. Where actors have no room, or the servers are
  slow, the learner waits as well, but depth would change nothing, and stays.
* Groups lie ready beyond a batch and a margin, each time in a row of batches: shallower by as many
  as never were needed.

Below one batch the learner would wait for the weights that it has just made, so a depth that adapts
stays above; at ``max_staleness`` 0 it is 0.
"""

from collections import deque
from math import ceil

_WATCHED = 4
"""Batches in a row in which groups must have lain ready before fewer are begun."""
_MARGIN = 3 / 8
"""Part of a batch that may lie ready: what keeps a late group from being waited for."""
_START = 1 / 2
"""Part of a batch beyond the least depth at which it begins."""
_NEGLIGIBLE = 0.02
"""Share of the time between two batches that may be waited."""


class Depth:
    """Of one learner; thread-safe where the coordinator is."""

    def __init__(
        self, *, groups_per_batch: int, max_staleness: int, batches: float | None = None
    ) -> None:
        """Fixed at ``batches``, at most ``max_staleness``, or adapted where that is None."""
        self._batch = groups_per_batch
        self._most = max_staleness * groups_per_batch
        self._least = min(groups_per_batch, self._most)
        self._is_fixed = batches is not None
        start = groups_per_batch * (1 + _START if batches is None else batches)
        self.groups = min(self._most, ceil(start))
        self._spare: deque[int] = deque(maxlen=_WATCHED)
        self._taken_at: float | None = None
        self._seen_at = 0.0
        self._is_waiting = False
        self._is_holding_back = False
        self._waited_s = 0.0
        self._refused_s = deque([0.0])
        """In each of the last batches that no wait was for; the newest is under way."""

    @classmethod
    def greatest(cls, groups_per_batch: int, max_staleness: int) -> "Depth":
        """As deep as the staleness bound allows."""
        return cls(
            groups_per_batch=groups_per_batch, max_staleness=max_staleness, batches=max_staleness
        )

    @property
    def batches(self) -> float:
        """The depth now, in batches."""
        return self.groups / self._batch

    def hold_back(self, now: float, *, is_so: bool) -> None:
        """From now on actors that could take more are refused it, or are not."""
        self._go_to(now)
        self._is_holding_back = is_so

    def wait(self, now: float) -> None:
        """The learner waits for a batch."""
        self._go_to(now)
        self._is_waiting = True

    def took(self, now: float, *, spare: int) -> None:
        """The learner took a batch, after which so many groups still lie ready."""
        self._go_to(now)
        self._is_waiting = False
        if self._taken_at is not None and not self._is_fixed:
            self._adapt(self._starved_s() / max(now - self._taken_at, 1e-9), spare)
        self._taken_at, self._waited_s = now, 0.0
        self._refused_s.append(0.0)
        while len(self._refused_s) > 1 + ceil(self.batches):
            self._refused_s.popleft()

    def _go_to(self, now: float) -> None:
        passed = max(0.0, now - self._seen_at)
        if self._is_waiting:
            self._waited_s += passed
        if self._is_holding_back:
            self._refused_s[-1] += passed
        self._seen_at = now

    def _starved_s(self) -> float:
        """Of the seconds waited those that refusals explain, of which each does so once."""
        left = self._waited_s
        for place, refused in enumerate(self._refused_s):
            explained = min(left, refused)
            self._refused_s[place] -= explained
            left -= explained
        return self._waited_s - left

    def _adapt(self, starved: float, spare: int) -> None:
        """``starved`` is the share of the time since the batch before."""
        if starved > _NEGLIGIBLE:
            self.groups = min(self._most, self.groups + ceil(self._batch * starved))
            self._spare.clear()
            return
        self._spare.append(spare)
        unused = min(self._spare) - ceil(self._batch * _MARGIN)
        if len(self._spare) == _WATCHED and unused > 0:
            self.groups = max(self._least, self.groups - unused)
            self._spare.clear()
