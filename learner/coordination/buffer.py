"""The groups that are open or ready, from the first lease of one until a batch takes it.

Pure. Whatever happens to them is decided first, as a ``Change``, which ``apply`` then makes and
``note`` is told: whoever keeps the changes can make them again without deciding anything.

A group counts as its whole size, buffered or running, until it is taken or dropped, as the
batch that it ends in does: places that a short group gave back early would never be used by a
batch, and the staleness bound would loosen for ever.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from common.errors import InputError
from common.telemetry.quiet_log import QuietLog
from common.wire.codec import Buffer
from common.wire.records import Purpose, Trajectory
from learner.coordination.changes import (
    Accepted,
    Change,
    Closed,
    Ended,
    Granted,
    Restarted,
    Stale,
    Taken,
)
from learner.coordination.counters import Counters
from learner.coordination.groups import Group, Order, SignalFilter, group_id_of
from learner.coordination.leases import Lease

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
        self.note: Callable[[Change], None] = lambda change: None
        """Told of every change, after it was made."""
        self._quiet = QuietLog(log)
        self.open_groups: dict[str, Group] = {}
        self.ready: deque[Group] = deque()
        self.late: set[str] = set()
        """Leases still out of groups that went on without them."""
        self.now = 0.0
        """When the last trajectory came, on the clock of whoever settles."""
        self.next_group = 0
        self.closed = 0
        """Groups for which nothing more is awaited, so far."""
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

    @property
    def has_waiting(self) -> bool:
        """Whether an open group has a member to hand out."""
        return self._first_waiting is not None

    @property
    def _first_waiting(self) -> Group | None:
        return next((group for group in self.open_groups.values() if group.waiting), None)

    # ---- decisions ---------------------------------------------------------------------------

    def grant(self, session: str, *, may_open: Callable[[], bool]) -> tuple[Group, str, int] | None:
        """Lease the next member to a session; its group, lease id and sample index.

        The oldest open group with a member to hand out comes first, then, where ``may_open``, a
        group of the next task.
        """
        group = self._first_waiting
        if group is None and may_open():
            group = self.open()
        if group is None:
            return None
        lease_id, sample_index = group.next_lease()
        granted = Granted(
            lease_id=lease_id,
            group=group.number,
            sample_index=sample_index,
            task_id=group.task.task_id,
            session=session,
        )
        self._do(granted)
        return group, lease_id, sample_index

    def settle(
        self,
        group_id: str,
        trajectory: Trajectory,
        *,
        learner_version: int,
        num_bytes: int,
        now: float,
        frames: Sequence[Buffer] = (),
    ) -> None:
        """A usable trajectory: into its group, unless it is late or too stale."""
        lease_id = trajectory.trajectory_id
        if lease_id not in self.late and not self._too_stale(trajectory, learner_version):
            self.now = now
            self._do(Accepted(trajectory=trajectory, num_bytes=num_bytes, frames=frames))
            self._close_if_complete(group_id)
            return
        self.fail(group_id, lease_id, "stale_on_arrival", counts=False, trajectory=trajectory)

    def fail(
        self,
        group_id: str,
        lease_id: str,
        reason: str,
        *,
        counts: bool = True,
        trajectory: Trajectory | None = None,
    ) -> None:
        """A lease brought nothing; ``counts`` against the tries of its member.

        What was spent on ``trajectory`` counts all the same.
        """
        is_late = lease_id in self.late
        ended = Ended(
            lease_id=lease_id,
            group_id=group_id,
            reason="late" if is_late else reason,
            counts=counts,
            usable=reason == "stale_on_arrival" and not is_late,
            tokens=trajectory.tokens_generated if trajectory else 0,
            cells=trajectory.cells_executed if trajectory else 0,
        )
        self._do(ended)
        self._close_if_complete(group_id)

    def close_overdue(self, now: float) -> None:
        """Go on without members that are missing too long."""
        if not self._group_timeout_s:
            return
        for group in list(self.open_groups.values()):
            if group.is_overdue(now, self._group_timeout_s):
                self._close(group)

    def take_batch(self, *, learner_version: int) -> list[Trajectory] | None:
        """A batch of complete fresh groups, oldest first; None while there are too few."""
        stale = [g for g in self._in_order() if self._too_stale(g, learner_version)]
        if stale:
            self._do(Stale(version=learner_version, groups=_ids(stale),
                           trajectories=_trajectories(stale)))  # fmt: skip
        if len(self.ready) < self.groups_per_batch:
            return None
        taken = self._in_order()[: self.groups_per_batch]
        self._do(Taken(version=learner_version, groups=_ids(taken),
                       trajectories=_trajectories(taken)))  # fmt: skip
        return [trajectory for group in taken for trajectory in group.in_order()]

    def restart(self, now: float) -> None:
        """Sessions keep what they hold of open groups, which wait for it from now on.

        What is late is over, and what no session is known to hold is handed out again.
        """
        nobodys = [
            lease_id
            for group in self.open_groups.values()
            for lease_id, out in group.leased.items()
            if not out.session
        ]
        if lost := (*sorted(self.late), *nobodys):
            self._do(Restarted(lost=lost))
        for group in self.open_groups.values():
            group.first_at = now if group.finished else None

    def out(self, *, deadline: float) -> Iterator[Lease]:
        """Leases of open groups, as of a coordinator before; to be claimed until ``deadline``."""
        for group in self.open_groups.values():
            for lease_id, out in group.leased.items():
                yield Lease(
                    lease_id=lease_id,
                    session=out.session,
                    group_id=group.group_id,
                    sample_index=out.sample_index,
                    purpose=Purpose.TRAIN,
                    task=group.task,
                    serial=0,
                    deadline=deadline,
                )

    def open(self) -> Group:
        """Begin a group of the next task."""
        group = Group.fresh(self.next_group, self.order.next(), self.group_size)
        self.next_group += 1
        self.open_groups[group.group_id] = group
        return group

    def _in_order(self) -> list[Group]:
        return sorted(self.ready, key=lambda group: group.number)

    def _too_stale(self, sampled: Group | Trajectory, learner_version: int) -> bool:
        oldest = sampled.oldest_version
        return oldest is not None and learner_version - oldest > self.max_staleness

    def _close_if_complete(self, group_id: str) -> None:
        group = self.open_groups.get(group_id)
        if group is not None and group.complete:
            self._close(group)

    def _close(self, group: Group) -> None:
        dropped_as = ""
        if len(group.finished) < min(2, group.size):
            dropped_as = "group_too_small"
            self._quiet.warning(
                "group dropped", "group=%s members=%d", group.group_id, len(group.finished)
            )
        elif self._signal_filter is not None and not self._signal_filter.admits(group):
            dropped_as = "no_signal"
        self._do(Closed(group_id=group.group_id, late=tuple(group.leased), dropped_as=dropped_as))

    # ---- changes -----------------------------------------------------------------------------

    def _do(self, change: Change) -> None:
        self.apply(change)
        self.note(change)

    def apply(self, change: Change) -> None:
        """Make a change that was decided, now or earlier; of evaluations there is none here.

        Raises:
            InputError: it does not follow from what is here.
        """
        match change:
            case Granted():
                self._granted(change)
            case Accepted():
                self._accepted(change)
            case Ended():
                self._ended(change)
            case Closed():
                self._closed(change)
            case Stale():
                self._stale(change)
            case Taken():
                self._taken(change)
            case Restarted():
                self._restarted(change)

    def _granted(self, change: Granted) -> None:
        group = self.open_groups.get(group_id_of(change.group))
        if group is None and change.group == self.next_group:
            group = self.open()
        if (
            group is None
            or group.task.task_id != change.task_id
            or ((change.lease_id, change.sample_index) != group.next_lease())
        ):
            raise InputError(
                f"the lease '{change.lease_id}' of task '{change.task_id}' is not the next one "
                "here; was a task file changed?"
            )
        group.lease(change.session)
        self.counters.started += 1

    def _accepted(self, change: Accepted) -> None:
        trajectory = change.trajectory
        self.counters.finished += 1
        self._spend(trajectory.tokens_generated, trajectory.cells_executed)
        group = self.open_groups[trajectory.group_id]
        group.settle(trajectory.trajectory_id, trajectory, change.num_bytes, self.now)

    def _ended(self, change: Ended) -> None:
        self.counters.finished += change.usable
        self._spend(change.tokens, change.cells)
        self.counters.drop(change.reason)
        if change.lease_id in self.late:
            self.late.discard(change.lease_id)
            return
        self.open_groups[change.group_id].give_back(change.lease_id, failed=change.counts)

    def _closed(self, change: Closed) -> None:
        group = self.open_groups.pop(change.group_id)
        self.closed += 1
        group.abandon()
        self.late.update(change.late)
        if change.dropped_as:
            self.counters.drop(change.dropped_as, len(group.finished))
        else:
            self.ready.append(group)

    def _stale(self, change: Stale) -> None:
        self._remove(change.groups)
        self.counters.drop("stale_in_buffer", len(change.trajectories))

    def _taken(self, change: Taken) -> None:
        self._remove(change.groups)
        self.counters.trained += len(change.trajectories)
        self.batches_taken += 1

    def _restarted(self, change: Restarted) -> None:
        lost = set(change.lost)
        self.late -= lost
        for group in self.open_groups.values():
            for lease_id in lost & group.leased.keys():
                group.give_back(lease_id, failed=False)
            group.waiting.sort()
        self.counters.drop(change.reason, len(lost))

    def _spend(self, tokens: int, cells: int) -> None:
        self.counters.tokens_generated += tokens
        self.counters.cells_executed += cells

    def _remove(self, group_ids: Sequence[str]) -> None:
        gone = set(group_ids)
        self.ready = deque(group for group in self.ready if group.group_id not in gone)


def _ids(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(group.group_id for group in groups)


def _trajectories(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(t.trajectory_id for group in groups for t in group.in_order())
