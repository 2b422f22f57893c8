"""The coordinator's state: leases out, trajectories in, batches of complete fresh groups.

Pure: no sockets, clock or threads; ``intake`` feeds it and acts on what it returns. The staleness
bound holds twice over. At admission, in trajectories (AReaL, arXiv 2505.24298, eq. 3):

    trained + buffered + running <= (max_staleness + v + 1) * B

where v is the lowest weight version that the policy servers acknowledged and B the batch; and
again when a trajectory arrives and when a batch is taken, where a group that is too stale is
dropped, counted and gives its place back. ``max_staleness = 0`` is synchronous training.
"""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.messages import Hello, Outcome, Purpose, Task, TaskLease, Trajectory
from learner.coordination.groups import Group, SignalFilter, TaskOrder

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Actor:
    """What the coordinator knows of one actor."""

    actor_id: str
    credit: int
    kernel_level: str
    leases: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Counters:
    """Training trajectories so far: ``started = trained + sum(dropped) + open``."""

    started: int = 0
    finished: int = 0
    trained: int = 0
    duplicates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens_generated: int = 0
    cells_executed: int = 0


@dataclass(slots=True)
class Evaluation:
    """Held-out tasks being run under one weight version."""

    waiting: deque[Task]
    temperature: float
    expected: int
    attempts: Counter[str] = field(default_factory=Counter)
    leased: dict[str, Task] = field(default_factory=dict)
    finished: list[Trajectory] = field(default_factory=list)
    lost: int = 0

    @property
    def done(self) -> bool:
        """Every task has a trajectory or was given up."""
        return len(self.finished) + self.lost >= self.expected


class Coordinator:
    """Owns the task cursor, the groups and the task leases."""

    def __init__(
        self,
        order: TaskOrder,
        *,
        groups_per_batch: int,
        group_size: int,
        max_staleness: int,
        temperature: float = 1.0,
        total_batches: int,
        max_buffered_bytes: int,
        attempt: int = 0,
        signal_filter: SignalFilter | None = None,
        group_timeout_s: float = 0.0,
    ) -> None:
        """An empty coordinator; ``attempt`` counts resumes, so that lease ids never repeat."""
        self.order = order
        self.counters = Counters()
        self.attempt = attempt
        self.version = 0
        self.batches_taken = 0
        self.open_groups: dict[str, Group] = {}
        self.ready: deque[Group] = deque()
        self.next_group = 0
        self.evaluation: Evaluation | None = None
        self._actors: dict[str, Actor] = {}
        self._lease_owner: dict[str, tuple[str, str | None]] = {}
        self._settled: set[str] = set()
        self._groups_per_batch = groups_per_batch
        self._group_size = group_size
        self._max_staleness = max_staleness
        self._temperature = temperature
        self._total_batches = total_batches
        self._max_buffered_bytes = max_buffered_bytes
        self._next_lease = 0
        self._signal_filter = signal_filter
        self._group_timeout_s = group_timeout_s
        self.late: set[str] = set()
        """Leases still out of groups that went on without them."""

    # ---- actors ------------------------------------------------------------------------------

    def join(self, hello: Hello) -> None:
        """An actor connects, or again: leases that it no longer knows of are handed out anew."""
        known = self._actors.get(hello.actor_id)
        if known is not None:
            self._lose(known, keep=set(hello.unacknowledged))
        leases = known.leases if known is not None else set()
        self._actors[hello.actor_id] = Actor(
            hello.actor_id, hello.credit, hello.kernel_level, leases
        )

    def leave(self, actor_id: str, reason: str) -> int:
        """An actor is gone: everything it held is handed out again. Returns how many leases."""
        actor = self._actors.pop(actor_id, None)
        return self._lose(actor, keep=set(), reason=reason) if actor is not None else 0

    def _lose(self, actor: Actor, keep: set[str], reason: str = "actor_lost") -> int:
        lost = actor.leases - keep
        for lease_id in sorted(lost):
            self._fail(lease_id, reason)
        return len(lost)

    @property
    def actors(self) -> tuple[str, ...]:
        """Ids of connected actors."""
        return tuple(self._actors)

    # ---- leases ------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """Trajectories in a batch."""
        return self._groups_per_batch * self._group_size

    @property
    def capacity(self) -> int:
        """Trajectories that may still be started under the staleness bound; can be negative."""
        admitted = min(self._max_staleness + self.version + 1, self._total_batches)
        pending = sum(group.pending for group in self.open_groups.values())
        held = sum(len(group.finished) for group in self.open_groups.values())
        held += sum(len(group.finished) for group in self.ready)
        return admitted * self.batch - self.counters.trained - held - pending

    @property
    def buffered_bytes(self) -> int:
        """Wire size of the trajectories kept."""
        return sum(g.num_bytes for g in (*self.open_groups.values(), *self.ready))

    def hand_out(self) -> list[tuple[str, TaskLease]]:
        """As many leases as credit and admission allow, each with its actor."""
        handed: list[tuple[str, TaskLease]] = []
        while True:
            actor = min(
                (a for a in self._actors.values() if len(a.leases) < a.credit),
                key=lambda a: len(a.leases) / a.credit,
                default=None,
            )
            lease = self._next(actor.actor_id) if actor is not None else None
            if actor is None or lease is None:
                return handed
            actor.leases.add(lease.lease_id)
            handed.append((actor.actor_id, lease))

    def _next(self, actor_id: str) -> TaskLease | None:
        if self.evaluation is not None and self.evaluation.waiting:
            return self._lease_evaluation(actor_id, self.evaluation)
        group = next((g for g in self.open_groups.values() if g.waiting), None)
        if group is None:
            if self.capacity < self._group_size or self.buffered_bytes > self._max_buffered_bytes:
                return None
            group = Group.fresh(self.next_group, self.order.next(), self._group_size)
            self.next_group += 1
            self.open_groups[group.group_id] = group
        lease_id = self._new_lease_id(group.group_id)
        sample_index = group.lease(lease_id)
        self._lease_owner[lease_id] = (actor_id, group.group_id)
        self.counters.started += 1
        return TaskLease(
            lease_id=lease_id,
            group_id=group.group_id,
            sample_index=sample_index,
            purpose=Purpose.TRAIN,
            temperature=self._temperature,
            task=group.task,
        )

    def _lease_evaluation(self, actor_id: str, evaluation: Evaluation) -> TaskLease:
        task = evaluation.waiting.popleft()
        lease_id = self._new_lease_id("eval")
        evaluation.leased[lease_id] = task
        evaluation.attempts[task.task_id] += 1
        self._lease_owner[lease_id] = (actor_id, None)
        return TaskLease(
            lease_id=lease_id,
            group_id="evaluation",
            sample_index=0,
            purpose=Purpose.EVALUATE,
            temperature=evaluation.temperature,
            task=task,
        )

    def _new_lease_id(self, group_id: str) -> str:
        self._next_lease += 1
        return f"{group_id}-r{self.attempt}-{self._next_lease}"

    # ---- trajectories ------------------------------------------------------------------------

    def receive(
        self,
        trajectory: Trajectory,
        *,
        learner_version: int,
        num_bytes: int = 0,
        now: float = 0.0,
    ) -> bool:
        """Take in a trajectory; returns False when it is a duplicate or of a lost lease.

        Either way the sender gets its ack: the answer to its existence has been decided.
        """
        lease_id = trajectory.trajectory_id
        owner = self._lease_owner.pop(lease_id, None)
        if owner is None:
            self.counters.duplicates += lease_id in self._settled
            return False
        self._settled.add(lease_id)
        actor_id, group_id = owner
        if actor_id in self._actors:
            self._actors[actor_id].leases.discard(lease_id)
        if group_id is None:
            self._receive_evaluation(trajectory)
            return True
        self.counters.tokens_generated += trajectory.tokens_generated
        self.counters.cells_executed += trajectory.cells_executed
        if lease_id in self.late:
            self._drop_late(lease_id)
        elif trajectory.outcome is Outcome.INFRASTRUCTURE:
            cause = trajectory.failure.partition(":")[0] or "unknown"
            self._drop_member(lease_id, group_id, f"infrastructure:{cause}"[:60])
        elif self._too_stale(trajectory, learner_version):
            self.counters.finished += 1
            self._drop_member(lease_id, group_id, "stale_on_arrival")
        else:
            self.counters.finished += 1
            self.open_groups[group_id].settle(lease_id, trajectory, num_bytes, now)
            self._close_if_complete(group_id)
        return True

    def _receive_evaluation(self, trajectory: Trajectory) -> None:
        evaluation = self.evaluation
        task = evaluation.leased.pop(trajectory.trajectory_id, None) if evaluation else None
        if evaluation is None or task is None:
            return
        if trajectory.outcome is not Outcome.INFRASTRUCTURE:
            evaluation.finished.append(trajectory)
        else:
            self._retry_evaluation(evaluation, task)

    @staticmethod
    def _retry_evaluation(evaluation: Evaluation, task: Task) -> None:
        if evaluation.attempts[task.task_id] < 3:
            evaluation.waiting.append(task)
        else:
            evaluation.lost += 1

    def _fail(self, lease_id: str, reason: str) -> None:
        owner = self._lease_owner.pop(lease_id, None)
        if owner is None:
            return
        actor_id, group_id = owner
        if actor_id in self._actors:
            self._actors[actor_id].leases.discard(lease_id)
        if lease_id in self.late:
            self._drop_late(lease_id)
        elif group_id is not None:
            self._drop_member(lease_id, group_id, reason)
        elif self.evaluation is not None and lease_id in self.evaluation.leased:
            self._retry_evaluation(self.evaluation, self.evaluation.leased.pop(lease_id))

    def _drop_member(self, lease_id: str, group_id: str, reason: str) -> None:
        self.counters.dropped[reason] += 1
        self.open_groups[group_id].give_back(lease_id)
        self._close_if_complete(group_id)

    def _close_if_complete(self, group_id: str) -> None:
        group = self.open_groups[group_id]
        if not group.complete:
            return
        self._close(group)

    def close_overdue(self, now: float) -> int:
        """Go on without members that are missing too long; returns how many groups did."""
        if not self._group_timeout_s:
            return 0
        overdue = [
            group
            for group in self.open_groups.values()
            if group.is_overdue(now, self._group_timeout_s)
        ]
        for group in overdue:
            self.late.update(group.abandon())
            self._close(group)
        return len(overdue)

    def _drop_late(self, lease_id: str) -> None:
        self.late.discard(lease_id)
        self.counters.dropped["late"] += 1

    def _close(self, group: Group) -> None:
        del self.open_groups[group.group_id]
        if len(group.finished) >= 2 or (len(group.finished) == 1 and group.size == 1):
            self._admit(group)
        else:
            self.counters.dropped["group_too_small"] += len(group.finished)
            log.warning("group dropped group=%s members=%d", group.group_id, len(group.finished))

    def _admit(self, group: Group) -> None:
        if self._signal_filter is None or self._signal_filter.admits(group):
            self.ready.append(group)
        else:
            self.counters.dropped["no_signal"] += len(group.finished)

    def _too_stale(self, trajectory: Trajectory, learner_version: int) -> bool:
        oldest = trajectory.oldest_version
        return oldest is not None and learner_version - oldest > self._max_staleness

    # ---- batches -----------------------------------------------------------------------------

    def take_batch(self, *, learner_version: int) -> list[Trajectory] | None:
        """A batch of complete fresh groups, oldest first; None while there are too few."""
        fresh: list[Group] = []
        for group in sorted(self.ready, key=lambda g: g.number):
            if any(self._too_stale(t, learner_version) for t in group.finished):
                self.counters.dropped["stale_in_buffer"] += len(group.finished)
            else:
                fresh.append(group)
        self.ready = deque(fresh)
        if len(fresh) < self._groups_per_batch:
            return None
        taken = [self.ready.popleft() for _ in range(self._groups_per_batch)]
        batch = [
            trajectory
            for group in taken
            for trajectory in sorted(group.finished, key=lambda t: t.sample_index)
        ]
        self.counters.trained += len(batch)
        self.batches_taken += 1
        return batch

    def begin_evaluation(self, tasks: Sequence[Task], *, temperature: float) -> None:
        """Hand out these tasks next, before any training task."""
        self.evaluation = Evaluation(deque(tasks), temperature, len(tasks))

    def take_evaluation(self) -> list[Trajectory] | None:
        """The finished evaluation, once; None while it runs or when there is none."""
        if self.evaluation is None or not self.evaluation.done:
            return None
        finished, self.evaluation = self.evaluation.finished, None
        return finished

    def waiting_for(self) -> str:
        """What a full batch is waiting for, in words, for time-outs."""
        leases = {actor.actor_id: len(actor.leases) for actor in self._actors.values()}
        return (
            f"{len(self.ready)} of {self._groups_per_batch} groups ready, "
            f"{len(self.open_groups)} open, leases held {leases or 'by no actor'}, "
            f"capacity {self.capacity}, weight version acknowledged {self.version}"
        )
