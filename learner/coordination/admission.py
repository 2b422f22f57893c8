"""Admission: how much may be begun beyond what the learner has taken. Pure.

In trajectories (AReaL, arXiv 2505.24298, eq. 3), where v is the lowest weight version that the
policy servers acknowledged and B the batch:

    capacity = (depth + v + 1) * B - batches_taken * B - buffered - running

The depth is at most ``max_staleness``, the staleness bound (``depth``). A short batch counts as a
whole one, and so does a short group; whatever is dropped gives its place back.
``max_staleness = 0`` is synchronous training.
"""

from learner.coordination.buffer import GroupBuffer
from learner.coordination.depth import Depth


class Admission:
    """Of one buffer of groups; ``version`` is v above."""

    def __init__(
        self, groups: GroupBuffer, depth: Depth, *, total_batches: int, max_buffered_bytes: int
    ) -> None:
        """Admit to ``groups``; see ``Coordinator``."""
        self._groups = groups
        self._depth = depth
        self._total_batches = total_batches
        self.max_buffered_bytes = max_buffered_bytes

    def capacity(self, version: int) -> int:
        """Trajectories that may still be started; can be negative."""
        groups = self._groups
        ahead = (version + 1) * groups.batch + self._depth.groups * groups.group_size
        admitted = min(ahead, self._total_batches * groups.batch)
        return admitted - groups.batches_taken * groups.batch - groups.places

    @property
    def is_full(self) -> bool:
        """Whether trajectories take more room than they may."""
        return self._groups.num_bytes > self.max_buffered_bytes

    def may_open(self, version: int) -> bool:
        """Whether depth and buffer allow a new group."""
        return not self.is_full and self.capacity(version) >= self._groups.group_size
