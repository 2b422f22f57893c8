"""Sessions and leases answer from bounds and a heap what looking through all of them would say."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.wire.records import Purpose, Task
from common.wire.session import Heartbeat, Hello
from learner.coordination.leases import Lease, LeaseBook
from learner.coordination.sessions import Sessions

SILENCE_S = 30.0
TASK = Task(task_id="t", question="?", answers=("a",))
NAMES = st.sampled_from([f"a#{n}" for n in range(5)])


def test_a_thousand_offers_of_one_session_leave_no_more_than_it_needs() -> None:
    held: Counter[str] = Counter()
    sessions = Sessions(held.__getitem__)
    for name in ("a#0", "a#1"):
        sessions.join(hello(name, 4), 0.0)
    for _ in range(1000):
        held["a#0"] = 3 - held["a#0"]
        sessions.offer("a#0")

    assert len(sessions._offered) < 40
    assert sessions.least_busy(now=0.0, silence_s=SILENCE_S) == "a#0"


def test_who_names_an_earlier_rotation_is_told_again() -> None:
    sessions = Sessions(lambda identity: 0)
    sessions.join(hello("a#0", 1), 0.0)

    assert sessions.tell(3) == ["a#0"]
    assert sessions.tell(3) == []
    sessions.beat("a#0", Heartbeat(seen=0, leases=(), rotation=2))
    assert sessions.tell(3) == ["a#0"]


def test_who_was_quiet_is_offered_leases_again_once_it_is_heard() -> None:
    sessions = Sessions(lambda identity: 0)
    sessions.join(hello("a#0", 1), 0.0)

    assert sessions.least_busy(now=20.0, silence_s=SILENCE_S) is None
    sessions.heard("a#0", 20.0)
    assert sessions.least_busy(now=20.0, silence_s=SILENCE_S) == "a#0"


def hello(identity: str, credit: int) -> Hello:
    actor, _, session = identity.partition("#")
    return Hello(actor_id=actor, session=session, schema_version=0, credit=credit, kernel_level="")


class Asked(RuleBasedStateMachine):
    """Whatever happens, the answers are those of a look at everything."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = LeaseBook()
        self.sessions = Sessions(self.leases.count)
        self.leases.on_count = self.sessions.offer
        self.now = 0.0
        self.granted = 0
        self.rotation = 1

    @rule(name=NAMES, credit=st.integers(0, 3))
    def join(self, name: str, credit: int) -> None:
        self.sessions.join(hello(name, credit), self.now)

    @rule(name=NAMES)
    def hear(self, name: str) -> None:
        self.sessions.heard(name, self.now)

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        self.sessions.pop(name, None)
        for lease_id in self.leases.of(name):
            self.leases.end(lease_id)

    @rule(name=NAMES)
    def retire(self, name: str) -> None:
        if name in self.sessions:
            self.sessions.retire(name)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=NAMES, lasts=st.sampled_from([5.0, 20.0, 60.0]))
    def grant(self, name: str, lasts: float) -> None:
        self.granted += 1
        self.leases.grant(
            Lease(
                lease_id=f"l{self.granted:03d}", session=name, group_id="g", sample_index=0,
                purpose=Purpose.TRAIN, task=TASK, serial=1, deadline=self.now + lasts,
            )
        )  # fmt: skip

    @rule(name=NAMES)
    def end(self, name: str) -> None:
        for lease_id in self.leases.of(name)[:1]:
            self.leases.end(lease_id)

    @rule(name=NAMES, lasts=st.sampled_from([5.0, 60.0]))
    def extend(self, name: str, lasts: float) -> None:
        self.leases.extend(name, self.now + lasts)

    @rule()
    def turn(self) -> None:
        self.rotation += 1

    @rule(name=NAMES, behind=st.integers(0, 2))
    def know(self, name: str, behind: int) -> None:
        if name in self.sessions:
            rotation = self.rotation - behind
            self.sessions.beat(name, Heartbeat(seen=0, leases=(), rotation=rotation))

    @rule()
    def tell(self) -> None:
        untold = [i for i, session in self.sessions.items() if session.told < self.rotation]
        assert self.sessions.tell(self.rotation) == untold

    @invariant()
    def the_least_busy_is_the_least_busy(self) -> None:
        free = [
            (self.leases.count(i) / session.credit, i)
            for i, session in self.sessions.items()
            if self.leases.count(i) < session.credit
            and self.now - session.last_heard <= SILENCE_S / 3
        ]
        expected = min(free, default=(0.0, None))[1]
        assert self.sessions.least_busy(now=self.now, silence_s=SILENCE_S) == expected

    @invariant()
    def who_is_silent_is_named(self) -> None:
        expected = {i for i, s in self.sessions.items() if self.now - s.last_heard > SILENCE_S}
        assert {i for i, _ in self.sessions.silent(self.now, SILENCE_S)} == expected

    @invariant()
    def what_is_overdue_is_named(self) -> None:
        every = [self.leases.held(i, by=s) for s in self.leases.sessions for i in self.leases.of(s)]
        expected = [lease.lease_id for lease in every if lease and lease.deadline <= self.now]
        assert [lease.lease_id for lease in self.leases.overdue(self.now)] == sorted(expected)


TestAsked = Asked.TestCase
TestAsked.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
