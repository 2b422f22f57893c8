"""Who joins gets a name once, and who is to leave gets nothing new."""

from collections.abc import Sequence

import pytest

from common.places import Address, Member
from common.wire.codec import SCHEMA_VERSION, decode, encode
from common.wire.joining import Admitted, Join
from common.wire.session import Refused
from learner.coordination.newcomers import Newcomers, Terms

PLANNED = (
    Member(name="learner", role="learner", key="l" * 40),
    Member(name="join", role="newcomer", key="j" * 40),
    Member(name="s0", role="policy-server", key="s" * 40),
    Member(name="a0", role="actor", key="a" * 40),
)


class Run:
    def __init__(
        self,
        admitted: tuple[Member, ...] = (),
        *,
        leaving: tuple[str, ...] = (),
        full_disk: bool = False,
    ) -> None:
        self.kept: tuple[Member, ...] = admitted
        self.kept_leaving: tuple[str, ...] = leaving
        self.inside: list[str] = []
        self.full_disk = full_disk
        terms = Terms(
            config="{}", weights=Address(bind="/weights"), finish_s=60.0, keep=self.keep,
            keep_leaving=self.keep_leaving, let_in=lambda member: self.inside.append(member.name),
        )  # fmt: skip
        self.newcomers = Newcomers(terms, PLANNED, admitted, leaving=leaving)

    def keep(self, members: Sequence[Member]) -> None:
        self.write()
        self.kept = tuple(members)

    def keep_leaving(self, names: Sequence[str]) -> None:
        self.write()
        self.kept_leaving = tuple(names)

    def write(self) -> None:
        if self.full_disk:
            raise OSError(28, "No space left on device")

    def admit(self, key: str, role: str = "actor", schema: int = SCHEMA_VERSION) -> str:
        answer = self.newcomers.admit(Join(role=role, key=key * 40, schema_version=schema))
        if isinstance(answer, Refused):
            return answer.reason
        assert isinstance(answer, Admitted)
        return answer.name


def test_newcomers_are_numbered_after_those_that_were_planned() -> None:
    run = Run()

    assert [run.admit("x"), run.admit("y"), run.admit("z", "policy-server")] == ["a1", "a2", "s1"]
    assert run.inside == ["a1", "a2", "s1"]


def test_a_key_has_one_name_however_often_it_asks() -> None:
    run = Run()

    assert [run.admit("x"), run.admit("x")] == ["a1", "a1"]
    assert len(run.kept) == 1


def test_a_learner_that_begins_again_gives_no_name_twice() -> None:
    first = Run()
    first.admit("x")
    first.newcomers.send_away("a1", living=["s0"])

    second = Run(first.kept)

    assert [second.admit("y"), second.admit("x")] == ["a2", "a1"]


def test_a_learner_that_begins_again_calls_nobody_back_who_is_to_leave() -> None:
    first = Run()
    first.admit("x")
    first.newcomers.send_away("a1", living=["s0"])

    second = Run(first.kept, leaving=first.kept_leaving)

    assert second.newcomers.leaving == {"a1"}
    assert second.newcomers.names("actor") == ["a0"]


def test_nobody_is_to_leave_before_that_is_on_the_disk() -> None:
    run = Run(full_disk=True)

    assert "No space left on device" in run.newcomers.send_away("a0", living=["s0"])
    assert run.newcomers.leaving == set()


def test_nobody_is_told_that_it_is_in_before_that_is_on_the_disk() -> None:
    run = Run(full_disk=True)

    assert "No space left on device" in run.admit("x")
    assert run.newcomers.role("a1") is None


def test_who_could_not_be_admitted_keeps_its_name_from_others() -> None:
    run = Run(full_disk=True)
    run.admit("x")

    run.full_disk = False
    assert run.admit("y") == "a2", "the doors know the first key as a1"


def test_another_version_is_refused() -> None:
    assert "wire schema 1" in Run().admit("x", schema=1)


def test_who_is_to_leave_is_counted_no_more_and_the_last_server_stays() -> None:
    run = Run()
    run.admit("z", "policy-server")

    assert run.newcomers.send_away("s0", living=["s0", "s1"]) == ""
    assert run.newcomers.names("policy-server") == ["s1"]
    assert "the only policy server" in run.newcomers.send_away("s1", living=["s0", "s1"])
    assert "there are: a0, s1" in run.newcomers.send_away("learner", living=["s1"])


@pytest.mark.parametrize(("role", "key"), [("learner", "k" * 40), ("actor", "short")])
def test_what_nobody_would_wish_is_no_wish(role: str, key: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Join(role=role, key=key, schema_version=SCHEMA_VERSION)


def test_a_wish_comes_as_it_was_sent() -> None:
    wish = Join(role="actor", key="k" * 40, schema_version=SCHEMA_VERSION)

    assert decode(encode(wish)) == wish
