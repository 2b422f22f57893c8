"""Whatever happens in whatever order: a lease ends once, and capacity is what the formula says.

A machine plays actors, a network that loses messages, a clock, a learner, and crashes that some
actors live through against the pure core, and keeps its own books from what it sees, to hold
against the coordinator's. A crash forgets records of which nobody was told.
"""

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from common.places import Address
from common.wire.hosting import ServerLoad
from common.wire.records import Outcome, Task, TaskLease, Trajectory
from common.wire.session import Heartbeat, Hello
from learner.coordination.changes import (
    Accepted,
    Change,
    Ended,
    Granted,
    from_record,
    to_record,
)
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import MAX_ATTEMPTS, TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.replay import play
from learner.coordination.roster import LiveServer
from learner.coordination.trajectory_checks import ModelLimits
from learner.journal.format import Record
from tests.makers import make_trajectory

TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]
GROUPS, SIZE, BATCHES = 2, 3, 6
SILENCE_S, LEASE_S, GROUP_S = 50.0, 200.0, 30.0


def member(lease_id: str) -> str:
    """Group and sample of a lease, without the attempt."""
    return lease_id.rpartition("-")[0]


def make_coordinator(max_staleness: int, *, adapts: bool) -> Coordinator:
    depth = Depth(groups_per_batch=GROUPS, max_staleness=max_staleness) if adapts else None
    return Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE,
        max_staleness=max_staleness, depth=depth, total_batches=BATCHES, max_buffered_bytes=1 << 30,
        group_timeout_s=GROUP_S, lease_timeout_s=LEASE_S, silence_s=SILENCE_S,
        limits=ModelLimits(vocabulary=64, max_context=64),
    )  # fmt: skip


class Coordination(RuleBasedStateMachine):
    """Actors, network, clock and learner around one coordinator."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.learner = 0
        self.hellos: dict[str, Hello] = {}
        self.holding: dict[str, dict[str, TaskLease]] = {}
        """What each session has received and not had acknowledged."""
        self.made: dict[str, tuple[str, Trajectory]] = {}
        """What became of leases, as their sessions said and say again."""
        self.accepted: Counter[str] = Counter()
        self.sampled: dict[str, int] = {}
        """Weight version under which a lease was begun."""
        self.granted: Counter[str] = Counter()
        self.trained: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Failures of their own by member, ``group-sample``."""

    @initialize(bound=st.integers(0, 3), adapts=st.booleans())
    def start(self, bound: int, adapts: bool) -> None:
        self.bound, self.adapts = bound, adapts
        self.state = self.journaling(make_coordinator(bound, adapts=adapts))
        server = LiveServer(name="s0", address=Address(bind="/s0"), life=0, version=0, reports=1)
        self.servers = {"s0": server, "s1": replace(server, name="s1")}
        self.is_troubled = False

    def journaling(self, state: Coordinator) -> Coordinator:
        """From here on everything goes into a journal."""
        self.checkpoint = save_ledger(state)
        self.journal: list[Record] = []
        self.told = 0
        """Records that are on the disk, because somebody was told of what rests on them."""
        state.groups.note = self.note
        return state

    def note(self, change: Change) -> None:
        self.journal.append(to_record(change))
        if isinstance(change, Accepted):
            self.accepted[change.trajectory.trajectory_id] += 1

    def tell(self) -> None:
        self.told = len(self.journal)

    def forget(self) -> None:
        """Of what was never told, the books know nothing either."""
        cut, self.journal = self.journal[self.told :], self.journal[: self.told]
        for change in map(from_record, cut):
            if isinstance(change, Granted):
                del self.granted[change.lease_id]
            elif isinstance(change, Accepted):
                self.accepted[change.trajectory.trajectory_id] -= 1
            elif isinstance(change, Ended):
                self.failed[member(change.lease_id)] -= change.counts

    # ---- actors and network

    @rule(target=sessions, actor=st.sampled_from("ab"), credit=st.integers(1, 7))
    def begin(self, actor: str, credit: int) -> str:
        hello = Hello(
            actor_id=actor, session=f"s{len(self.hellos)}", schema_version=0,
            credit=credit, kernel_level="A",
        )  # fmt: skip
        self.hellos[hello.identity] = hello
        self.holding[hello.identity] = {}
        assert self.state.join(hello, now=self.now)
        self.tell()
        return hello.identity

    @rule(session=sessions)
    def say_hello_again(self, session: str) -> None:
        """Like an actor that was told to: what the coordinator does not name is given up."""
        known = session in self.state.sessions
        before = self.state.held_by(session), dict(self.state.counters.dropped)
        holds = tuple(self.holding[session])
        hello = replace(self.hellos[session], leases=holds)
        assert self.state.join(hello, now=self.now) is not known
        after = self.state.held_by(session)
        if known:
            assert (after, dict(self.state.counters.dropped)) == before
        else:
            assert set(after) == set(before[0]) & set(holds), "it has what was and is its own"
        self.holding[session] = {i: x for i, x in self.holding[session].items() if i in after}
        self.tell()

    @rule(lose=st.booleans())
    def hand_out(self, lose: bool) -> None:
        before = len(self.out())
        handed = self.state.hand_out(now=self.now)
        most = self.state.credit.limit(1 << 30)
        assert not handed or before + len(handed) <= most, "never more than servers bear"
        assert self.is_troubled or most == 1 << 30, "without trouble there is no limit"
        for identity, lease in handed:
            if lease.group_id != "evaluation":
                self.granted[lease.lease_id] += 1
            self.sampled[lease.lease_id] = self.state.version
            if not lose:
                self.holding[identity][lease.lease_id] = lease
                self.tell()

    @rule(session=sessions, forget=st.booleans())
    def beat(self, session: str, forget: bool) -> None:
        if not self.state.heard(session, self.now):
            return
        if forget and self.holding[session]:
            self.holding[session].popitem()
        named = tuple(self.holding[session])
        sent = self.state.heartbeat(session, Heartbeat(seen=0, leases=named))
        self.state.heartbeat(session, Heartbeat(seen=sent, leases=named))
        assert set(self.state.held_by(session)) <= set(named)
        self.tell()

    @rule(
        session=sessions,
        reasons=st.lists(st.sampled_from(["ok"] * 6 + ["infrastructure", "nonsense"]), min_size=1),
        acked=st.sampled_from([True, True, False]),
    )
    def finish(self, session: str, reasons: list[str], acked: bool) -> None:
        """Episodes end; without an ack their trajectories are kept, and come again."""
        if not self.state.heard(session, self.now):
            return
        kept: dict[str, TaskLease] = {}
        for drawn in reasons[: len(self.holding[session])]:
            _, lease = self.holding[session].popitem()
            made = drawn, self.trajectory(lease, session, drawn)
            reason, trajectory = self.made.setdefault(lease.lease_id, made)
            kept[lease.lease_id] = lease
            is_held = lease.lease_id in self.state.held_by(session)
            self.failed[member(lease.lease_id)] += reason != "ok" and is_held
            for _ in range(2):  # the ack was lost: it is sent again
                self.state.receive(session, trajectory, learner_version=self.learner, now=self.now)
        if acked:
            self.tell()
        else:
            self.holding[session] |= kept

    @rule(session=sessions, rounds=st.integers(1, 5), keeps=st.integers(0, 2))
    def work(self, session: str, rounds: int, keeps: int) -> None:
        """The run gets on, and what a session has held longest comes last."""
        for _ in range(rounds):
            self.hand_out(lose=False)
            self.finish(session, ["ok"] * (len(self.holding[session]) - keeps), acked=True)
            self.learn(publishes=True)
        self.finish(session, ["ok"] * keeps, acked=True)

    @rule(thief=sessions, victim=sessions)
    def steal(self, thief: str, victim: str) -> None:
        if thief == victim or not self.holding[victim] or thief not in self.state.sessions:
            return
        lease = next(iter(self.holding[victim].values()))
        before = save_ledger(self.state)
        forged = self.trajectory(lease, thief, "ok")
        assert not self.state.receive(thief, forged, learner_version=self.learner, now=self.now)
        self.state.counters.duplicates -= 1
        assert save_ledger(self.state) == before

    @rule(session=sessions, really=st.integers(0, 3))
    def leave(self, session: str, really: int) -> None:
        if really:
            return
        self.state.leave(session, "actor_left")
        self.holding[session] = {}

    # ---- clock, learner, restarts

    @rule(seconds=st.sampled_from([1.0, 1.0, 20.0, 35.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        before = {session: self.state.held_by(session) for session in self.state.sessions}
        self.state.tick(self.now)
        for session in self.state.sessions:
            expired = set(before[session]) - set(self.state.held_by(session))
            self.failed.update(map(member, expired))

    @rule(publishes=st.booleans())
    def learn(self, publishes: bool) -> None:
        if publishes:
            self.state.version = self.learner
        batch = self.state.take_batch(learner_version=self.learner, now=self.now)
        if batch is None:
            return
        self.tell()
        self.trained.update(t.trajectory_id for t in batch)
        ages = [self.learner - (t.oldest_version or 0) for t in batch]
        assert max(ages) <= self.bound
        assert all(np.isfinite(t.step_rewards).all() for t in batch)
        self.learner += 1

    @rule(
        name=st.sampled_from(["s0", "s1"]),
        preempted=st.sampled_from([0, 0, 1, 9]),
        waiting=st.sampled_from([0, 0, 9]),
        is_another=st.sampled_from([False] * 9 + [True]),
        times=st.integers(1, 9),
        sampled=st.integers(0, 9),
    )
    def report(
        self, name: str, preempted: int, waiting: int, is_another: bool, times: int, sampled: int
    ) -> None:
        """A policy server says what it has to do, or is another one by that name."""
        seen = self.servers[name]
        if is_another:
            seen = replace(seen, load=ServerLoad(), life=seen.life + 1)
        self.is_troubled = self.is_troubled or bool(preempted or waiting)
        before = self.state.held_by("a#s0"), len(self.out())
        for _ in range(times):
            was = seen.load
            load = ServerLoad(running=6, waiting=waiting, preemptions=was.preemptions + preempted,
                              sampled=was.sampled + sampled, busy_s=was.busy_s + 1)  # fmt: skip
            seen = replace(seen, load=load, reports=seen.reports + 1)
            self.servers[name] = seen
            self.state.hear_loads(tuple(self.servers.values()))
        assert (self.state.held_by("a#s0"), len(self.out())) == before, "nobody loses a lease"
        assert self.state.credit.limit(1 << 30) >= SIZE, "a whole group may be under way"

    @rule(pinned=st.booleans())
    def evaluate(self, pinned: bool) -> None:
        state = self.state
        if state.evaluations.current is None:
            state.evaluations.begin(
                TASKS[:2], temperature=0.0, version=state.version, pinned=pinned
            )
        elif (done := state.evaluations.take()) is not None:
            finished = done.finished
            assert len({t.trajectory_id for t in finished}) == len(finished) <= 2
            assert all((t.oldest_version or 0) >= done.version for t in finished)

    @rule(really=st.integers(0, 2))
    def checkpoint_is_written(self, really: int) -> None:
        if not really:
            self.journaling(self.state)

    @rule(really=st.integers(0, 3), die=st.sampled_from(["", "a", "b", "ab"]))
    def crash(self, really: int, die: str) -> None:
        """Checkpoint and journal give the state, to the last count; sessions may come back."""
        if really:
            return
        is_whole = self.told == len(self.journal)
        self.forget()
        before, state = self.state, make_coordinator(self.bound, adapts=self.adapts)
        restore_ledger(state, self.checkpoint)
        for record in self.journal:
            play(state, from_record(record))
        if is_whole:
            state.counters.duplicates = before.counters.duplicates
            assert save_ledger(state) == save_ledger(before)
        self.state = state
        state.groups.note = self.note
        state.version = before.version
        state.begin(self.now)
        for session, holds in self.holding.items():
            own = {i for group in before.groups.open_groups.values() for i in group.leased
                   if i in before.held_by(session)}  # fmt: skip
            assert own & holds.keys() <= set(state.held_by(session)), "it may claim what it has"
            if session[0] in die:
                self.holding[session] = {}

    def trajectory(self, lease: TaskLease, session: str, reason: str) -> Trajectory:
        trajectory = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            version=self.sampled[lease.lease_id], purpose=lease.purpose,
            task_id=lease.task.task_id, actor_id=self.hellos[session].actor_id,
            outcome=Outcome.INFRASTRUCTURE if reason == "infrastructure" else Outcome.SUBMITTED,
        )  # fmt: skip
        if reason == "nonsense":
            return replace(trajectory, step_rewards=trajectory.step_rewards * np.nan)
        return trajectory

    def out(self) -> list[str]:
        """Leases that are out, also with sessions that have not come back yet."""
        sessions = (*self.state.sessions, *self.state.unclaimed)
        return [lease_id for session in sessions for lease_id in self.state.held_by(session)]

    # ---- what always holds

    @invariant()
    def every_hand_out_is_an_attempt_and_only_own_failures_are_tries(self) -> None:
        attempts = Counter(member(lease_id) for lease_id in self.granted)
        for group in self.state.groups.open_groups.values():
            came = {trajectory.sample_index for trajectory in group.finished}
            pending = {*group.waiting, *(out.sample_index for out in group.leased.values())}
            for sample in range(group.size):
                name = f"{group.group_id}-{sample}"
                failed = self.failed[name]
                assert group.attempts.get(sample, 0) == attempts[name]
                assert group.failures.get(sample, 0) == failed
                assert (sample in came | pending) == (failed < MAX_ATTEMPTS), "given up by failures"

    @invariant()
    def every_lease_is_granted_once_and_ends_once(self) -> None:
        counters, groups = self.state.counters, self.state.groups
        assert max(self.granted.values(), default=1) == 1, "an id is never used twice"
        assert max(self.trained.values(), default=1) == 1, "a trajectory is never trained twice"
        assert max(self.accepted.values(), default=1) <= 1, "a trajectory is accepted once"
        out = self.out()
        training = [i for i in out if i in self.granted]
        kept = [t.trajectory_id for g in (*groups.open_groups.values(), *groups.ready)
                for t in g.finished]  # fmt: skip
        places = Counter(training) + Counter(kept) + self.trained
        assert max(places.values(), default=1) == 1, "a lease is in one place"
        assert counters.started == self.granted.total()
        assert counters.trained == self.trained.total()
        assert counters.started == (
            counters.trained + counters.dropped.total() + len(kept) + len(training)
        )

    @invariant()
    def capacity_is_the_formula(self) -> None:
        groups, batch = self.state.groups, GROUPS * SIZE
        begun = (self.state.version + 1) * batch
        ahead = min(begun + self.state.depth.groups * SIZE, BATCHES * batch)
        admitted = min(begun + self.bound * batch, BATCHES * batch)
        places = SIZE * (len(groups.open_groups) + len(groups.ready))
        assert self.state.capacity == ahead - groups.batches_taken * batch - places
        assert groups.batches_taken * batch + places <= admitted, "never more than is admitted"

    @invariant()
    def what_is_open_can_complete(self) -> None:
        """Every member still to come is out with a known session or waits to be handed out."""
        held = self.out()
        for group in self.state.groups.open_groups.values():
            assert group.leased.keys() <= set(held)
            assert group.pending > 0

    @invariant()
    def depth_is_within_the_bound(self) -> None:
        groups = self.state.depth.groups
        assert groups <= self.bound * GROUPS
        assert groups == self.bound * GROUPS or (self.adapts and groups >= GROUPS)

    @invariant()
    def no_session_holds_more_than_its_credit(self) -> None:
        for session in self.state.sessions:
            assert len(self.state.held_by(session)) <= self.hellos[session].credit


TestCoordination = Coordination.TestCase
TestCoordination.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no failure
)
