"""What servers bear holds back new leases, and nothing else."""

from dataclasses import replace

import pytest

from common.places import Address
from common.wire.hosting import ServerLoad
from common.wire.records import Purpose, Task, TaskLease
from common.wire.session import Hello
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.roster import Roster
from tests.makers import make_trajectory

GROUPS, SIZE = 8, 2
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(20)]


class Run:
    """A coordinator whose one policy server says what it has to do."""

    def __init__(
        self, *, depth: Depth | None = None, max_staleness: int = 10, groups: int = GROUPS
    ) -> None:
        self.state = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=groups, group_size=SIZE,
            max_staleness=max_staleness, depth=depth, total_batches=100,
            max_buffered_bytes=1 << 30, silence_s=1e9,
        )  # fmt: skip
        self.roster = Roster(suspect_s=10)
        self.roster.join("s0", Address(bind="/s0"))
        self.load = ServerLoad(running=20)
        self.out: list[tuple[str, TaskLease]] = []

    def join(self, actor: str, credit: int = 40, *, leases: tuple[str, ...] = ()) -> str:
        hello = Hello(
            actor_id=actor, session="s", schema_version=0, credit=credit, kernel_level="",
            leases=leases,
        )  # fmt: skip
        self.state.join(hello)
        return hello.identity

    def hand_out(self, now: float = 0.0) -> int:
        """How many more leases are out."""
        handed = self.state.hand_out(now=now)
        self.out += handed
        return len(handed)

    def preempt(self, count: int) -> None:
        """The server reports, and so many sequences lost their place since it did last."""
        self.load = replace(
            self.load, preemptions=self.load.preemptions + count,
            sampled=self.load.sampled + 100, busy_s=self.load.busy_s + 1,
        )  # fmt: skip
        self.roster.loaded("s0", 0, self.load)
        self.state.hear_loads(self.roster.reporting)

    def thrash(self, out: int | None = None) -> None:
        """The server lacked room while all that is out ended twice: a quarter less is tried."""
        credit, out = self.state.credit, len(self.out) if out is None else out
        for turn in range(4):
            credit.handed_out(out, ended=turn * out, held_back=False)
            for _ in range(6):
                self.preempt(1)

    def finish(self, count: int) -> None:
        """The leases that have been out longest bring their trajectories."""
        for identity, lease in self.out[:count]:
            made = make_trajectory(
                lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
                purpose=lease.purpose, task_id=lease.task.task_id, version=self.state.version,
                actor_id=identity.partition("#")[0],
            )  # fmt: skip
            self.state.receive(identity, made, learner_version=self.state.version)
        del self.out[:count]


def test_nothing_is_handed_out_before_what_is_out_has_fallen_below_the_limit() -> None:
    run = Run()
    run.join("a0")
    run.join("a1")
    assert run.hand_out() == 80
    run.thrash()
    assert run.state.credit_share == 0.75

    run.finish(20)
    assert run.hand_out() == 0
    assert "servers bear no more than 60 leases at once" in run.state.waiting_for()
    run.finish(5)

    assert run.hand_out() == 5
    held = [len(run.state.held_by(session)) for session in ("a0#s", "a1#s")]
    assert sorted(held) == [30, 30], "all sessions share what there is"


def test_without_trouble_every_session_has_all_that_it_asks_for() -> None:
    run = Run()
    run.join("a0")
    run.hand_out()
    for _ in range(8):
        run.preempt(0)
        run.finish(10)
        run.hand_out()

    assert len(run.out) == 40
    assert run.state.credit_share == 1


def test_where_there_is_nothing_to_hand_out_the_limit_does_not_rise() -> None:
    run = Run(max_staleness=0)
    run.join("a0")
    assert run.hand_out() == GROUPS * SIZE
    run.thrash()
    for ended in (5, 11, *[0] * 10):
        run.finish(ended)
        assert run.hand_out() == 0
        run.preempt(0)

    assert run.state.credit.limit(100) == 12


def test_a_limit_that_is_just_what_the_learner_lets_begin_does_not_rise() -> None:
    run = Run(max_staleness=0, groups=6)
    run.join("a0")
    assert run.hand_out() == 12
    run.thrash(16)
    assert run.state.credit.limit(100) == 12

    for version in range(6):
        run.finish(12)
        assert run.state.take_batch(learner_version=version) is not None
        run.state.version = version + 1
        assert run.hand_out() == 12, "and nothing else waits"
        for _ in range(6):
            run.preempt(0)

    assert run.state.credit.limit(100) == 12


@pytest.mark.parametrize("lacks_room", [False, True])
def test_sampling_goes_deeper_for_a_learner_that_waits_unless_servers_lack_room(
    lacks_room: bool,
) -> None:
    depth = Depth(groups_per_batch=GROUPS, max_staleness=10)
    run = Run(depth=depth)
    depth.took(0.0, spare=0)
    before = depth.groups
    run.join("a0", credit=60)
    run.hand_out()
    assert len(run.out) == (GROUPS + before) * SIZE < 60, "depth holds back"

    if lacks_room:
        run.thrash()
    run.hand_out(now=0.0)  # from now on it is servers that refuse, or depth still
    assert run.state.take_batch(learner_version=0, now=1.0) is None
    depth.took(10.0, spare=0)

    assert (depth.groups > before) is not lacks_room


def test_a_session_that_leaves_keeps_nobody_from_work_that_servers_bear() -> None:
    run = Run()
    going = run.join("a0")
    run.hand_out()
    run.thrash()
    run.finish(15)
    run.state.retire(going)
    run.join("a1")

    assert run.hand_out() == 5, "30 may be out, 25 are"
    assert run.state.credit_share == 0.75
    run.finish(25)
    assert run.hand_out() == 25
    assert {identity for identity, _ in run.out} == {"a1#s"}


def test_leases_that_are_adopted_may_be_more_than_servers_bear() -> None:
    run, again = Run(), Run()
    run.join("a0")
    run.hand_out()
    restore_ledger(again.state, save_ledger(run.state))
    again.state.begin(0.0)
    again.join("a1", credit=10)
    again.hand_out()
    again.thrash(50)
    assert again.state.credit.limit(50) == 37
    names = tuple(lease.lease_id for _, lease in run.out)
    identity = again.join("a0", leases=names)

    assert set(again.state.held_by(identity)) == set(names)
    assert again.hand_out() == 0
    again.out = run.out
    again.finish(15)
    assert again.hand_out() == 2


@pytest.mark.parametrize(("pinned", "share"), [(True, 1), (False, 1 / 4)])
def test_a_held_out_question_comes_when_it_would_without_a_limit(
    pinned: bool, share: float
) -> None:
    run = Run()
    run.join("a0")
    run.hand_out()
    run.thrash()
    run.state.evaluations.begin(TASKS[:12], temperature=0.0, pinned=pinned)
    run.finish(10 + 12)
    before = len(run.out)
    assert run.hand_out() == 12

    purposes = [lease.purpose for _, lease in run.out[before:]]
    assert purposes.count(Purpose.EVALUATE) == 12 * share


def test_a_server_that_died_or_is_in_doubt_is_not_heard() -> None:
    roster = Run().roster
    roster.updated("s0", 0, 0)
    roster.loaded("s0", 0, ServerLoad(preemptions=3))
    assert [server.reports for server in roster.reporting] == [1]

    news = roster.news_of_load
    roster.doubted("s0", 0, "it does not answer", now=0.0)
    assert roster.reporting == ()
    assert roster.news_of_load > news
    roster.answered("s0", 0)
    assert [server.load.preemptions for server in roster.reporting] == [3]
    roster.failed("s0", 0, "it ended")
    assert roster.reporting == ()
    roster.loaded("s0", 0, ServerLoad(preemptions=4))
    assert roster.reporting == (), "that was of the life before"
    assert roster.server("s0").load == ServerLoad()
