"""Who joins is answered, who is to leave is told so once, and again when it is heard again."""

from common.places import Address, Member, ServerPlace
from common.wire.codec import SCHEMA_VERSION, Record
from common.wire.joining import Admitted, Join, Listed, SendAway, SentAway, Serving
from common.wire.records import Task
from common.wire.session import Drain, Heartbeat, Leave, Refused
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.membership import Membership
from learner.coordination.newcomers import Newcomers, Terms
from learner.coordination.registrar import Registrar
from learner.coordination.roster import Standing
from tests.coordination import hello

PLANNED = (
    Member(name="join", role="newcomer", key="j" * 40),
    Member(name="s0", role="policy-server", key="s" * 40),
    Member(name="a0", role="actor", key="a" * 40),
)
OVER = Drain(reason="the run is over", finish_s=0.0)
SERVING = Serving(address=Address(bind="/s1"))


class Run:
    def __init__(self) -> None:
        self.said: list[tuple[str, Record]] = []
        terms = Terms(
            config="{}", weights=Address(bind="/weights"), finish_s=60.0,
            keep=lambda members: None, keep_leaving=lambda names: None,
            let_in=lambda member: None,
        )  # fmt: skip
        self.coordinator = Coordinator(
            TaskOrder([Task(task_id="t", question="?", answers=("!",))], seed=0),
            groups_per_batch=1, group_size=2, max_staleness=0, total_batches=9,
            max_buffered_bytes=1 << 20,
        )  # fmt: skip
        self.membership = Membership([ServerPlace(name="s0", address=Address(bind="/s0"))])
        self.registrar = Registrar(
            Newcomers(terms, PLANNED), self.coordinator, self.membership,
            lambda identity, record: self.said.append((identity.decode(), record)),
        )  # fmt: skip

    def say(self, member: str, record: Record, drain: Drain | None = None) -> list[Record]:
        """What is said to the member that says this."""
        before = len(self.said)
        self.registrar.read(f"{member}#x".encode(), member, record, drain)
        return [answer for identity, answer in self.said[before:] if identity == f"{member}#x"]

    def join(self, role: str, key: str) -> str:
        (answer,) = self.say("join", Join(role=role, key=key, schema_version=SCHEMA_VERSION))
        assert isinstance(answer, Admitted)
        return answer.name

    def servers(self) -> list[str]:
        """Who belongs to the run."""
        with self.membership.roster() as roster:
            return [server.name for server in roster.servers]

    def drained(self) -> list[str]:
        """Who is told to leave, by a look at who is to."""
        before = len(self.said)
        self.registrar.send_away()
        assert all(isinstance(record, Drain) for _, record in self.said[before:])
        return [identity for identity, _ in self.said[before:]]


def test_what_actors_say_is_for_others() -> None:
    run = Run()
    name = run.join("actor", "x" * 40)

    assert not run.registrar.hears("a0")
    assert not run.registrar.hears(name)
    assert run.registrar.hears("join")
    assert run.registrar.hears("s0")


def test_a_session_that_is_to_leave_is_told_once_and_again_after_a_hello() -> None:
    run = Run()
    run.coordinator.join(hello("a0"))
    assert run.drained() == []

    (answer,) = run.say("join", SendAway(name="a0"))

    assert answer == SentAway(text="a0 leaves once it has finished its 0 episodes")
    assert run.drained() == ["a0#s"]
    assert run.drained() == []
    run.registrar.greeted("a0#s")
    assert run.drained() == ["a0#s"]
    assert run.coordinator.hand_out() == [], "it gets no tasks any more"


def test_a_server_that_joined_is_listed_and_forgotten_when_it_leaves() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    (answer,) = run.say(name, SERVING)

    assert answer == Listed(standing=Standing.JOINING, cause="it has not taken weights yet")
    assert run.servers() == ["s0", "s1"]
    assert run.say(name, Leave(reason="done")) == []
    assert run.servers() == ["s0"]


def test_a_server_that_is_to_leave_is_told_whenever_it_is_heard() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    run.say(name, SERVING)

    (answer,) = run.say("join", SendAway(name=name))

    assert answer == SentAway(text="s1 gets no more requests and leaves")
    assert run.drained() == ["s1#x"]
    assert run.drained() == []
    (again,) = run.say(name, SERVING)
    assert isinstance(again, Drain)


def test_the_last_server_that_is_there_stays_also_where_others_were() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    run.say(name, SERVING)
    run.say(name, Leave(reason="Ctrl-C"))

    (answer,) = run.say("join", SendAway(name="s0"))

    assert isinstance(answer, Refused)
    assert "only policy server" in answer.reason
    assert run.servers() == ["s0"]


def test_a_server_stays_where_all_others_are_dead() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    run.say(name, SERVING)
    with run.membership.roster() as roster:
        life = roster.server(name).life
    with run.membership.roster() as roster:
        roster.failed(name, life, "it was killed")

    (answer,) = run.say("join", SendAway(name="s0"))
    assert isinstance(answer, Refused)


def test_what_becomes_of_who_is_not_there_is_not_taken_for_what_the_plan_started() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    run.say(name, SERVING)
    assert run.say("join", SendAway(name="s0")) == [
        SentAway(text="s0 gets no more requests; its process ends with the run")
    ]
    gone = run.join("actor", "x" * 40)
    assert run.say("join", SendAway(name=gone)) == [
        SentAway(text="a1 is not there now; should it come, it gets nothing to do")
    ]


def test_at_the_end_of_the_run_servers_that_joined_are_told_once_and_when_they_are_heard() -> None:
    run = Run()
    name = run.join("policy-server", "z" * 40)
    run.say(name, SERVING)

    run.registrar.close(OVER)
    run.registrar.close(OVER)

    assert [record for _, record in run.said].count(OVER) == 1
    assert run.say(name, SERVING, OVER) == [OVER]


def test_what_is_of_no_use_is_not_answered_and_a_wrong_wish_is_refused() -> None:
    run = Run()

    assert run.say("join", SERVING) == []
    assert run.say("s0", Join(role="actor", key="k" * 40, schema_version=SCHEMA_VERSION)) == []
    assert run.say("s0", Heartbeat(seen=0, leases=())) == []
    (answer,) = run.say("join", SendAway(name="a7"))
    assert isinstance(answer, Refused)
