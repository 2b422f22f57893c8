"""Whatever servers, checks and the clock do in whatever order: only who is sound is asked.

A schedule plays a publisher, watchers, a parity check and a clock against the pure roster. What
they begin takes a while, so that all may end late, out of order, or be about a life that is over.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from common.places import Address
from common.wire.session import Rotation
from learner.coordination.roster import LiveServer, Roster, Standing

SUSPECT_S = 10.0
NAMES = ("s0", "s1", "s2")
EVENTS, FAULTS = 200, 3
QUICK, MANY = 300, 10_000


@dataclass
class Machine:
    """A server as it really is; ``since_death`` is what was told of its present life, in order."""

    process: int = 0
    life: int = 0
    """How often it was found dead, or joined again."""
    hangs: bool = False
    loaded: int | None = None
    since_death: list[tuple[str, int]] = field(default_factory=list)
    doubted_at: float | None = None


@dataclass
class Job:
    """Something that was begun: for which life of which process, and the version it is about."""

    kind: str
    server: LiveServer
    process: int
    life: int
    version: int


class Schedule:
    """One random history, and the books that it keeps by itself."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.roster = Roster(suspect_s=SUSPECT_S)
        self.machines = {name: Machine() for name in NAMES[: self.chance.randint(1, 3)]}
        for name in self.machines:
            self.roster.join(name, Address(bind=f"/{name}"))
        self.now, self.offered, self.newest, self.faults = 0.0, -1, -1, 0
        self.jobs: list[Job] = []
        self.seen = self.roster.rotation

    def run(self) -> None:
        steps: list[Callable[[], None]] = [
            *[self.begin_update] * 5, *[self.begin_check] * 4, *[self.begin_watch] * 4,
            *[self.end_job] * 14, *[self.pass_time] * 3, self.publish, self.publish, self.fault,
            self.leave_or_join,
        ]  # fmt: skip
        for _ in range(EVENTS):
            self.chance.choice(steps)()
            self.check()
        while self.faults < FAULTS:
            self.fault()
            self.check()

    # ---- what publisher, watchers and check begin

    def any_server(self) -> LiveServer | None:
        return self.chance.choice(self.roster.servers or (None,))

    def begin(self, kind: str, server: LiveServer | None, version: int) -> None:
        if server is not None and version >= 0:
            machine = self.machines[server.name]
            self.jobs.append(Job(kind, server, machine.process, machine.life, version))

    def publish(self) -> None:
        if self.chance.random() < 0.5:
            self.offered += 1
            for server in self.roster.to_update():
                self.begin("update", server, self.offered)
        elif self.offered >= 0:
            self.newest = self.offered
            self.roster.published(self.newest)

    def begin_update(self) -> None:
        self.begin("update", self.any_server(), self.offered)

    def begin_check(self) -> None:
        candidates = self.roster.holding(self.offered) or self.roster.unproven()
        if candidates:
            server = self.chance.choice(candidates)
            self.begin("check", server, server.version if server.version is not None else -1)

    def begin_watch(self) -> None:
        server = self.any_server()
        if server is not None and server.version is not None:
            self.begin("watch", server, server.version)

    # ---- and how it ends

    def end_job(self) -> None:
        if not self.jobs:
            return
        job = self.jobs.pop(self.chance.randrange(len(self.jobs)))
        machine = self.machines[job.server.name]
        same = machine.process == job.process
        if machine.hangs and job.kind == "watch":
            self.doubt(job)
        elif machine.hangs or not same:
            self.fail(job, "it died or hangs")
        elif job.kind == "update":
            self.complete(job, machine)
        elif job.kind == "check" and machine.loaded is not None:
            self.prove(job, machine)
        elif job.kind == "watch":
            self.look(job, machine)

    def complete(self, job: Job, machine: Machine) -> None:
        if self.roster.updated(job.server.name, job.server.life, job.version):
            assert job.life == machine.life, "word of an earlier life counts"
            machine.loaded, machine.doubted_at = job.version, None
            machine.since_death.append(("update", job.version))

    def prove(self, job: Job, machine: Machine) -> None:
        if self.roster.proved(job.server.name, job.server.life, job.version):
            assert job.life == machine.life, "word of an earlier life counts"
            assert machine.since_death, "nothing is proven of a server without weights"
            machine.since_death.append(("proof", job.version))

    def look(self, job: Job, machine: Machine) -> None:
        if machine.loaded is not None and machine.loaded >= job.version:
            if job.life == machine.life:
                machine.doubted_at = None
            self.roster.answered(job.server.name, job.server.life)
        else:
            self.fail(job, "it has other weights")

    def doubt(self, job: Job) -> None:
        before = self.roster.standing(job.server.name)
        self.roster.doubted(job.server.name, job.server.life, "no answer", self.now)
        after = self.roster.standing(job.server.name)
        if before is not after:
            self.machines[job.server.name].doubted_at = self.now

    def fail(self, job: Job, cause: str) -> None:
        if self.roster.failed(job.server.name, job.server.life, cause):
            assert job.life == self.machines[job.server.name].life, "word of an earlier life counts"
            self.died(job.server.name)

    def died(self, name: str) -> None:
        machine = self.machines[name]
        machine.since_death, machine.doubted_at, machine.life = [], None, machine.life + 1

    # ---- faults, comings and goings, time

    def fault(self) -> None:
        """A process is killed and started again, hangs, or goes on; or a late word comes again."""
        self.faults += 1
        machine = self.machines[self.chance.choice(list(self.machines))]
        match self.chance.randrange(4):
            case 0:
                machine.process, machine.loaded = machine.process + 1, None
            case 1:
                machine.hangs = True
            case 2:
                machine.hangs = False
            case 3 if self.jobs:
                self.jobs.append(self.chance.choice(self.jobs))

    def leave_or_join(self) -> None:
        name = self.chance.choice(list(self.machines))
        if self.chance.random() < 0.2:
            self.roster.leave(name)
            self.died(name)
            assert self.roster.standing(name) is Standing.DEAD
        self.roster.join(name, Address(bind=f"/{name}"))

    def pass_time(self) -> None:
        self.now += self.chance.choice((1.0, 3.0, 6.0))
        for name in self.roster.tick(self.now):
            doubted_at = self.machines[name].doubted_at
            assert doubted_at is not None
            assert self.now - doubted_at >= SUSPECT_S
            self.died(name)
        for name, machine in self.machines.items():
            if machine.doubted_at is not None:
                assert self.now - machine.doubted_at < SUSPECT_S, f"{name} is doubted for ever"

    # ---- what always holds

    def check(self) -> None:
        rotation, roster = self.roster.rotation, self.roster
        assert rotation.number - self.seen.number == (same_words(rotation) != same_words(self.seen))
        self.seen = rotation
        asked = {one.server: one.version for one in rotation.asked}
        assert asked.keys().isdisjoint(rotation.lost)
        assert roster.causes.keys() == {s.name for s in roster.servers} - asked.keys()
        assert all(roster.causes.values()), "who is not asked has a cause"
        for server in roster.servers:
            told, name = self.machines[server.name].since_death, server.name
            assert (name in asked) == (roster.standing(name) is Standing.CURRENT)
            if name in asked:
                assert asked[name] >= self.newest >= 0
                assert ("update", asked[name]) in told
                assert self.machines[name].doubted_at is None
                assert "proof" in [kind for kind, _ in told]
            assert not told or told[0][0] == "update", "the update comes before the check"


def same_words(rotation: Rotation) -> tuple[object, object]:
    return rotation.asked, rotation.lost


def play(seeds: range) -> int:
    """Play schedules; how often somebody came back from the dead and was asked again."""
    returns = 0
    for seed in seeds:
        schedule = Schedule(seed)
        schedule.run()
        assert schedule.faults >= FAULTS
        returns += sum(
            server.life >= len(NAMES) and schedule.roster.standing(server.name) is Standing.CURRENT
            for server in schedule.roster.servers
        )
    return returns


def test_only_sound_servers_are_asked_whatever_happens() -> None:
    assert play(range(QUICK)) > QUICK / 10, "the schedules must get somewhere"


@pytest.mark.nightly
def test_only_sound_servers_are_asked_whatever_happens_ten_thousand_times() -> None:
    play(range(QUICK, QUICK + MANY))


@pytest.fixture
def roster() -> Roster:
    """One server, asked at version 3."""
    roster = Roster(suspect_s=SUSPECT_S)
    roster.join("s0", Address(bind="/s0"))
    assert roster.updated("s0", 0, 3)
    roster.published(3)
    assert roster.proved("s0", 0, 3)
    assert roster.standing("s0") is Standing.CURRENT
    return roster


def test_a_dead_server_returns_by_an_update_and_a_check_and_by_nothing_less(roster: Roster) -> None:
    assert roster.failed("s0", 0, "its process has ended")
    assert roster.rotation.lost == ("s0",)
    roster.answered("s0", 1)
    assert not roster.proved("s0", 1, 3), "it has no weights that could be checked"
    assert roster.standing("s0") is Standing.DEAD
    assert roster.updated("s0", 1, 3)
    assert (roster.standing("s0"), roster.rotation.asked) == (Standing.JOINING, ())
    assert roster.causes == {"s0": "it waits for its parity check"}
    assert [server.name for server in roster.unproven()] == ["s0"]
    assert not roster.proved("s0", 0, 3), "that check was of the life before"
    assert roster.proved("s0", 1, 3)
    assert roster.standing("s0") is Standing.CURRENT
    assert roster.rotation.lost == ()


def test_a_server_that_is_elsewhere_begins_anew_and_one_that_left_is_nobody(
    roster: Roster,
) -> None:
    roster.join("s0", Address(bind="/s0"))
    assert roster.standing("s0") is Standing.CURRENT, "said again"

    roster.join("s0", Address(bind="/elsewhere"))

    assert roster.standing("s0") is Standing.JOINING
    assert not roster.proved("s0", 0, 3), "that was the one before"
    roster.leave("s0")
    assert (roster.rotation.asked, roster.rotation.lost) == ((), ()), "it finishes what it has"


def test_a_late_failure_of_the_life_before_takes_nobody_out(roster: Roster) -> None:
    roster.failed("s0", 0, "timed out")
    roster.updated("s0", 1, 3)
    roster.proved("s0", 1, 3)

    assert not roster.failed("s0", 0, "it did not answer the parity check")

    assert roster.standing("s0") is Standing.CURRENT


def test_a_server_in_doubt_is_not_asked_and_comes_back_without_an_update(roster: Roster) -> None:
    roster.doubted("s0", 0, "timed out", now=5.0)
    assert (roster.standing("s0"), roster.rotation.asked) == (Standing.SUSPECT, ())
    assert roster.rotation.lost == (), "what it is at work on may still come"
    assert not roster.tick(now=14.9)

    roster.answered("s0", 0)

    assert roster.standing("s0") is Standing.CURRENT
    roster.doubted("s0", 0, "timed out", now=20.0)
    assert roster.tick(now=30.0) == ["s0"]
    assert roster.causes == {"s0": "for 10 s: timed out"}


def test_a_server_that_missed_a_publish_is_behind_until_it_has_caught_up(roster: Roster) -> None:
    roster.published(4)
    assert roster.standing("s0") is Standing.BEHIND
    assert roster.causes == {"s0": "it has weights of version 3, 4 is published"}

    assert roster.updated("s0", 0, 4)

    assert roster.standing("s0") is Standing.CURRENT, "it passed its check in this life"
    assert not roster.updated("s0", 0, 3)
