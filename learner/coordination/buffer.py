"""The groups that are open or ready, from the first lease of one until a batch takes it.

Pure. A group counts as its whole size, buffered or running, until it is taken or dropped, as the
batch that it ends in does: places that a short group gave back early would never be used by a
batch, and the staleness bound would loosen for ever.
"""

import logging
from collections import deque

from common.telemetry.quiet_log import QuietLog
from common.wire.records import Trajectory
from learner.coordination.counters import Counters
from learner.coordination.groups import Group, Order, SignalFilter

log = logging.getLogger(__name__)


class GroupBuffer:
    """Groups of trajectories under way to a batch; counts what is dropped in ``counters``."""

    def __init__(
        self,
        order: Order,
        *,
        groups_per_batch: int,
        group_size: int,
        max_staleness: int,
        signal_filter: SignalFilter | None,
        group_timeout_s: float,
    ) -> None:
        """An empty buffer; the arguments are the coordinator's."""
        self.order = order
        self.counters = Counters()
        self._quiet = QuietLog(log)
        self.open_groups: dict[str, Group] = {}
        self.ready: deque[Group] = deque()
        self.late: set[str] = set()
        """Leases still out of groups that went on without them."""
        self.next_group = 0
        self.batches_taken = 0
        self.groups_per_batch = groups_per_batch
        self.group_size = group_size
        self.max_staleness = max_staleness
        self._signal_filter = signal_filter
        self._group_timeout_s = group_timeout_s

    @property
    def batch(self) -> int:
        """Trajectories in a batch."""
        return self.groups_per_batch * self.group_size

    @property
    def places(self) -> int:
        """Places in batches that the groups here will take, in trajectories."""
        return sum(group.size for group in (*self.open_groups.values(), *self.ready))

    @property
    def num_bytes(self) -> int:
        """Wire size of the trajectories kept."""
        return sum(g.num_bytes for g in (*self.open_groups.values(), *self.ready))

    def waiting(self) -> Group | None:
        """The oldest open group with a member to hand out."""
        return next((group for group in self.open_groups.values() if group.waiting), None)

    def open(self) -> Group:
        """Begin a group of the next task."""
        group = Group.fresh(self.next_group, self.order.next(), self.group_size)
        self.next_group += 1
        self.open_groups[group.group_id] = group
        return group

    def settle(
        self,
        group_id: str,
        trajectory: Trajectory,
        *,
        learner_version: int,
        num_bytes: int,
        now: float,
    ) -> None:
        """A usable trajectory: into its group, unless it is late or too stale."""
        lease_id = trajectory.trajectory_id
        if lease_id in self.late:
            self._drop_late(lease_id)
            return
        self.counters.finished += 1
        if self._too_stale(trajectory, learner_version):
            self.fail(group_id, lease_id, "stale_on_arrival", counts=False)
            return
        group = self.open_groups[group_id]
        group.settle(lease_id, trajectory, num_bytes, now)
        self._close_if_complete(group)

    def fail(self, group_id: str, lease_id: str, reason: str, *, counts: bool = True) -> None:
        """A lease brought nothing; ``counts`` against the tries of its member."""
        if lease_id in self.late:
            self._drop_late(lease_id)
            return
        self.counters.drop(reason)
        group = self.open_groups[group_id]
        group.give_back(lease_id, failed=counts)
        self._close_if_complete(group)

    def close_overdue(self, now: float) -> None:
        """Go on without members that are missing too long."""
        if not self._group_timeout_s:
            return
        for group in list(self.open_groups.values()):
            if group.is_overdue(now, self._group_timeout_s):
                self.late.update(group.abandon())
                self._close(group)

    def take_batch(self, *, learner_version: int) -> list[Trajectory] | None:
        """A batch of complete fresh groups, oldest first; None while there are too few."""
        fresh: list[Group] = []
        for group in sorted(self.ready, key=lambda g: g.number):
            if any(self._too_stale(t, learner_version) for t in group.finished):
                self.counters.drop("stale_in_buffer", len(group.finished))
            else:
                fresh.append(group)
        self.ready = deque(fresh)
        if len(fresh) < self.groups_per_batch:
            return None
        taken = [self.ready.popleft() for _ in range(self.groups_per_batch)]
        batch = [
            trajectory
            for group in taken
            for trajectory in sorted(group.finished, key=lambda t: t.sample_index)
        ]
        self.counters.trained += len(batch)
        self.batches_taken += 1
        return batch

    def _too_stale(self, trajectory: Trajectory, learner_version: int) -> bool:
        oldest = trajectory.oldest_version
        return oldest is not None and learner_version - oldest > self.max_staleness

    def _drop_late(self, lease_id: str) -> None:
        self.late.discard(lease_id)
        self.counters.drop("late")

    def _close_if_complete(self, group: Group) -> None:
        if group.complete:
            self._close(group)

    def _close(self, group: Group) -> None:
        del self.open_groups[group.group_id]
        if len(group.finished) < min(2, group.size):
            self.counters.drop("group_too_small", len(group.finished))
            self._quiet.warning(
                "group dropped", "group=%s members=%d", group.group_id, len(group.finished)
            )
        elif self._signal_filter is None or self._signal_filter.admits(group):
            self.ready.append(group)
        else:
            self.counters.drop("no_signal", len(group.finished))
