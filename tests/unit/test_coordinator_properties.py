"""Whatever happens in whatever order: a lease ends once, and capacity is what the formula says.

A machine plays actors, a network that loses messages, a clock, a learner and restarts against the
pure core, and keeps its own books from what it sees, to hold against the coordinator's.
"""

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from common.wire.records import Outcome, Task, TaskLease, Trajectory
from common.wire.session import Heartbeat, Hello
from learner.coordination.changes import from_record, to_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import MAX_ATTEMPTS, TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.trajectory_checks import ModelLimits
from learner.journal.format import Record
from tests.makers import make_trajectory

TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]
GROUPS, SIZE, BATCHES = 2, 3, 6
SILENCE_S, LEASE_S, GROUP_S = 50.0, 200.0, 30.0


def member(lease_id: str) -> str:
    """Group and sample of a lease, without the attempt."""
    return lease_id.rpartition("-")[0]


def make_coordinator(max_staleness: int) -> Coordinator:
    return Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE,
        max_staleness=max_staleness, total_batches=BATCHES, max_buffered_bytes=1 << 30,
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
        self.sampled: dict[str, int] = {}
        """Weight version under which a lease was begun."""
        self.granted: Counter[str] = Counter()
        self.trained: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Failures of their own by member, ``group-sample``."""

    @initialize(bound=st.integers(0, 3))
    def start(self, bound: int) -> None:
        self.bound = bound
        self.state = self.journaling(make_coordinator(bound))

    def journaling(self, state: Coordinator) -> Coordinator:
        """From here on everything goes into a journal."""
        self.checkpoint = save_ledger(state)
        self.journal: list[Record] = []
        state.groups.note = lambda change: self.journal.append(to_record(change))
        return state

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
        return hello.identity

    @rule(session=sessions)
    def say_hello_again(self, session: str) -> None:
        """Like an actor that was told to: what the coordinator does not name is given up."""
        known = session in self.state.sessions
        before = self.state.held_by(session), dict(self.state.counters.dropped)
        assert self.state.join(self.hellos[session], now=self.now) is not known
        after = self.state.held_by(session)
        assert (after, dict(self.state.counters.dropped)) == before
        self.holding[session] = {i: x for i, x in self.holding[session].items() if i in after}

    @rule(lose=st.booleans())
    def hand_out(self, lose: bool) -> None:
        for identity, lease in self.state.hand_out(now=self.now):
            if lease.group_id != "evaluation":
                self.granted[lease.lease_id] += 1
            self.sampled[lease.lease_id] = self.state.version
            if not lose:
                self.holding[identity][lease.lease_id] = lease

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

    @rule(
        session=sessions,
        reasons=st.lists(st.sampled_from(["ok"] * 6 + ["infrastructure", "nonsense"]), min_size=1),
    )
    def finish(self, session: str, reasons: list[str]) -> None:
        if not self.state.heard(session, self.now):
            return
        for reason in reasons[: len(self.holding[session])]:
            _, lease = self.holding[session].popitem()
            trajectory = self.trajectory(lease, session, reason)
            is_held = lease.lease_id in self.state.held_by(session)
            self.failed[member(lease.lease_id)] += reason != "ok" and is_held
            for _ in range(2):  # the ack was lost: it is sent again
                self.state.receive(session, trajectory, learner_version=self.learner, now=self.now)

    @rule(session=sessions, rounds=st.integers(1, 5), keeps=st.integers(0, 2))
    def work(self, session: str, rounds: int, keeps: int) -> None:
        """The run gets on, and what a session has held longest comes last."""
        for _ in range(rounds):
            self.hand_out(lose=False)
            self.finish(session, ["ok"] * (len(self.holding[session]) - keeps))
            self.learn(publishes=True)
        self.finish(session, ["ok"] * keeps)

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
        batch = self.state.take_batch(learner_version=self.learner)
        if batch is None:
            return
        self.trained.update(t.trajectory_id for t in batch)
        ages = [self.learner - (t.oldest_version or 0) for t in batch]
        assert max(ages) <= self.bound
        assert all(np.isfinite(t.step_rewards).all() for t in batch)
        self.learner += 1

    @rule()
    def evaluate(self) -> None:
        if self.state.evaluation is None:
            self.state.begin_evaluation(TASKS[:2], temperature=0.0)
        elif (finished := self.state.take_evaluation()) is not None:
            assert len({t.trajectory_id for t in finished}) == len(finished) <= 2

    @rule(really=st.integers(0, 3))
    def restart(self, really: int) -> None:
        if really:
            return
        ledger, evaluated = save_ledger(self.state), self.state.version
        state = make_coordinator(self.bound)
        restore_ledger(state, ledger)
        self.state = self.journaling(state)
        self.state.version = evaluated
        self.holding = {session: {} for session in self.holding}

    @rule(really=st.integers(0, 2))
    def checkpoint_is_written(self, really: int) -> None:
        if not really:
            self.journaling(self.state)

    @rule(really=st.integers(0, 3))
    def crash(self, really: int) -> None:
        """Checkpoint and journal give the state, to the last count; then leases are lost."""
        if really:
            return
        before, version = self.state, self.state.version
        state = make_coordinator(self.bound)
        restore_ledger(state, self.checkpoint, is_replayed=True)
        for record in self.journal:
            state.apply(from_record(record))
        state.counters.duplicates = before.counters.duplicates
        assert save_ledger(state) == save_ledger(before)
        self.state = state
        self.state.groups.note = before.groups.note
        self.state.groups.restart(self.now)
        self.state.version = version
        self.holding = {session: {} for session in self.holding}

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

    # ---- what always holds

    @invariant()
    def every_hand_out_is_an_attempt_and_only_own_failures_are_tries(self) -> None:
        attempts = Counter(member(lease_id) for lease_id in self.granted)
        for group in self.state.groups.open_groups.values():
            came = {trajectory.sample_index for trajectory in group.finished}
            pending = {*group.waiting, *group.leased.values()}
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
        out = [i for session in self.state.sessions for i in self.state.held_by(session)]
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
        admitted = min(self.bound + self.state.version + 1, BATCHES) * batch
        places = SIZE * (len(groups.open_groups) + len(groups.ready))
        assert self.state.capacity == admitted - groups.batches_taken * batch - places
        assert groups.batches_taken * batch + places <= admitted, "never more than is admitted"

    @invariant()
    def what_is_open_can_complete(self) -> None:
        """Every member still to come is out with a known session or waits to be handed out."""
        held = {i for session in self.state.sessions for i in self.state.held_by(session)}
        for group in self.state.groups.open_groups.values():
            assert set(group.leased) <= held
            assert group.pending > 0

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
