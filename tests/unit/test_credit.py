"""As many leases are out as the servers bear, whatever they say; and no fewer."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from common.places import Address
from common.wire.hosting import ServerLoad
from learner.coordination.credit import Credit
from learner.coordination.roster import LiveServer
from tests.simulated_servers import SimulatedServer, SimulatedService

FLOOR, ASKED = 4, 96
CALM = ServerLoad(running=20)
BOUNDED = 64 * 2 + 1
"""Rounds in which calm leads to the top: with care twice as many as there are steps."""


class Servers:
    """Policy servers that say how they are, and what is out."""

    def __init__(self, *names: str, floor: int = FLOOR, load: ServerLoad = CALM) -> None:
        self.credit = Credit(floor=floor)
        self.ended = 0
        self.out = ASKED
        self.seen = {
            name: LiveServer(name=name, address=Address(bind=f"/{name}"), life=0, version=0)
            for name in names or ("s0",)
        }
        self.say(**dict.fromkeys(self.seen, load))

    def say(self, **loads: ServerLoad) -> None:
        """These servers report."""
        for name, load in loads.items():
            seen = self.seen[name]
            self.seen[name] = replace(seen, load=load, reports=seen.reports + 1)
        self.hear()

    def hear(self) -> None:
        self.credit.hear(tuple(self.seen.values()), out=self.out, asked=ASKED)

    def preempt(self, count: int, *names: str) -> None:
        """These servers, or all, have taken so many sequences their place since they said last."""
        for name in names or tuple(self.seen):
            load = self.seen[name].load
            self.say(**{name: replace(load, preemptions=load.preemptions + count)})

    def go_on(self, *, held_back: bool = True, ended: int = ASKED) -> None:
        """Leases end, and as many are handed out as may be."""
        self.ended += ended
        self.out = self.limit if held_back else self.out
        self.credit.handed_out(self.out, ended=self.ended, held_back=held_back)

    def calm_round(self, *, held_back: bool = True, ended: int = ASKED) -> None:
        self.go_on(held_back=held_back, ended=ended)
        self.say(**{name: seen.load for name, seen in self.seen.items()})

    @property
    def limit(self) -> int:
        return self.credit.limit(ASKED)


def waiting(*counts: int) -> Sequence[ServerLoad]:
    return [ServerLoad(running=20, waiting=count) for count in counts]


def test_sequences_that_lost_their_place_lower_the_limit_by_a_part_of_their_share() -> None:
    servers = Servers()
    servers.preempt(10)
    assert servers.limit == ASKED - ASKED // 16, "half of the sequences, an eighth of that"


def test_at_most_a_quarter_is_taken_away_at_once() -> None:
    servers = Servers()
    servers.preempt(1000)
    assert servers.limit == ASKED * 3 // 4


def test_what_lowers_the_limit_is_what_was_out_and_not_what_might_have_been() -> None:
    servers = Servers()
    servers.out = 40
    servers.say(s0=CALM)
    servers.preempt(1000)
    assert servers.limit == 30


def test_the_limit_falls_once_for_each_effect() -> None:
    servers = Servers()
    servers.preempt(1000)
    before = servers.limit
    servers.credit.handed_out(ASKED - 1, ended=1, held_back=True)
    servers.preempt(1000)
    assert servers.limit == before, "what is out has not fallen to it yet"
    servers.go_on()
    servers.preempt(1000)
    assert servers.limit == before, "some of that was before what is out had fallen to it"
    servers.preempt(1000)
    assert servers.limit == before * 3 // 4


def test_the_limit_stays_at_the_size_of_a_group() -> None:
    servers = Servers()
    for _ in range(200):
        servers.preempt(1000)
        servers.go_on()
    assert servers.limit == FLOOR


def test_a_session_that_asks_for_less_than_the_floor_is_never_limited() -> None:
    servers = Servers(floor=ASKED + 1)
    servers.preempt(1000)
    assert not servers.credit.is_over(ASKED)
    assert servers.limit == ASKED


def test_a_count_that_falls_is_a_new_beginning() -> None:
    servers = Servers("s0", "s1", load=replace(CALM, preemptions=500))
    servers.say(s0=CALM)
    assert servers.limit == ASKED
    servers.preempt(20, "s1")
    servers.preempt(0, "s0")
    assert servers.limit == ASKED - ASKED // 16, "one of two, and nothing makes up for it"


def test_what_a_server_counted_in_an_earlier_life_does_not_count() -> None:
    servers = Servers()
    servers.seen["s0"] = replace(
        servers.seen["s0"], life=1, load=replace(CALM, preemptions=500), reports=1
    )
    servers.hear()
    servers.say(s0=servers.seen["s0"].load)
    assert servers.limit == ASKED


def test_one_of_four_servers_in_trouble_lowers_the_limit_by_a_quarter_of_what_all_would() -> None:
    servers = Servers("s0", "s1", "s2", "s3")
    servers.say(**dict.fromkeys(("s1", "s2", "s3"), CALM))
    servers.preempt(20, "s0")
    assert servers.limit == ASKED - ASKED // 32


def test_a_round_does_not_wait_for_a_server_that_has_left_or_says_nothing() -> None:
    servers = Servers("s0", "s1")
    servers.preempt(20, "s0")
    assert servers.limit == ASKED, "the other has not said how it is"
    del servers.seen["s1"]
    servers.hear()
    assert servers.limit < ASKED

    servers = Servers("s0", "s1")
    for _ in range(3):
        servers.preempt(20, "s0")
    assert servers.limit < ASKED


def test_only_a_queue_that_never_empties_lowers_the_limit_by_half_of_what_was_too_much() -> None:
    servers = Servers()
    for load in waiting(45, 45, 5, 45, 45, 45, 25, 45):
        servers.say(s0=load)
    assert servers.limit == ASKED, "it was short once, and as long as may be"
    servers.say(s0=waiting(45)[0])
    assert servers.limit == ASKED - (25 - 5) // 2, "a quarter of what is sampled may wait"


def test_with_calm_and_work_held_back_the_limit_comes_to_the_top_in_bounded_rounds() -> None:
    servers = Servers()
    for _ in range(200):
        servers.preempt(1000)
        servers.go_on()
    limits = []
    for _ in range(BOUNDED):
        servers.calm_round()
        limits.append(servers.limit)
    assert limits == sorted(limits)
    assert servers.limit == ASKED
    assert not servers.credit.is_over(10 * ASKED), "there is no limit any more"


@pytest.mark.parametrize(("held_back", "ended"), [(False, ASKED), (True, 0)])
def test_the_limit_only_rises_where_it_is_felt_and_what_was_handed_out_has_had_its_time(
    held_back: bool, ended: int
) -> None:
    servers = Servers()
    servers.preempt(1000)
    servers.go_on()
    before = servers.limit
    for _ in range(20):
        servers.calm_round(held_back=held_back, ended=ended)
    assert servers.limit == before


def play(seed: int) -> bool:
    """One random history; returns whether the limit was ever below the top."""
    chance = random.Random(seed)
    floor, asked = chance.randint(1, 16), chance.randint(0, 200)
    credit, ended, out, is_troubled = Credit(floor=floor), 0, 0, False
    names = [f"s{number}" for number in range(chance.randint(1, 3))]
    place = Address(bind="/s")
    seen = {n: LiveServer(name=n, address=place, life=0, version=0, reports=1) for n in names}
    limited, may_trouble = False, seed % 3 > 0
    for _ in range(200):
        before = credit.limit(asked)
        event = chance.choice(["report"] * 6 + ["hand out"] * 4 + ["die", "leave", "sessions"])
        name = chance.choice(names)
        if event == "report" and name in seen:
            was = seen[name].load
            fresh = chance.randint(0, 30) * chance.choice([0, 0, 1]) * may_trouble
            queue = chance.randint(0, 60) * may_trouble
            load = ServerLoad(running=chance.randint(0, 40), waiting=queue,
                              preemptions=was.preemptions + fresh)  # fmt: skip
            load = load if chance.random() < 0.95 else replace(load, preemptions=0)
            is_troubled = is_troubled or bool(fresh or queue)
            seen[name] = replace(seen[name], load=load, reports=seen[name].reports + 1)
            credit.hear(tuple(seen.values()), out=out, asked=asked)
            assert credit.limit(asked) >= before or is_troubled, "it falls by trouble alone"
        elif event == "hand out":
            ends = chance.randint(0, out)
            out, ended = out - ends, ended + ends
            while out < asked and not credit.is_over(out):
                out += 1
            held_back = out < asked
            credit.handed_out(out, ended=ended, held_back=held_back)
            assert held_back <= limited, "nothing is held back without trouble"
            assert credit.limit(asked) == before
        elif event == "die":
            life = seen[name].life + 1 if name in seen else 0
            seen[name] = LiveServer(name=name, address=place, life=life, version=0, reports=1)
        elif event == "leave":
            seen.pop(name, None)
        elif event == "sessions":
            asked = chance.randint(0, 200)
        limit = credit.limit(asked)
        assert min(floor, asked) <= limit <= asked
        limited = limited or credit.is_over(1 << 30)
    assert is_troubled or not limited
    return limited


def test_whatever_servers_say_the_limit_keeps_its_bounds_and_falls_by_trouble_alone() -> None:
    assert sum(map(play, range(300))) > 100, "the schedules must get somewhere"


@pytest.mark.nightly
def test_whatever_servers_say_the_limit_keeps_its_bounds_ten_thousand_times() -> None:
    for seed in range(300, 10_300):
        play(seed)


def test_throughput_comes_within_a_twentieth_of_the_best_that_any_fixed_credit_has() -> None:
    fixed = {
        asked: SimulatedService([SimulatedServer(cache=1000)], asked=asked, adapts=False).play(150)
        for asked in (30, 36, 42, ASKED)
    }
    rates = {asked: service.rate(since=20) for asked, service in fixed.items()}
    adapted = SimulatedService([SimulatedServer(cache=1000)], asked=ASKED, adapts=True).play(100)
    preempted = adapted.preemptions
    adapted.play(300)

    assert rates[ASKED] < 0.75 * max(rates.values()), "with all that is asked, most is done twice"
    assert rates[36] == max(rates.values()), "so many sequences have room"
    assert adapted.rate(since=100) > 0.95 * rates[36]
    assert all(28 <= limit <= 44 for limit in adapted.limits[20:])
    before, now = fixed[ASKED].preemptions / 150, (adapted.preemptions - preempted) / 200
    assert now < before / 8, "for each second"


def test_nothing_is_lost_where_the_servers_bear_everything() -> None:
    roomy = [SimulatedServer(cache=9000), SimulatedServer(cache=9000)]
    free = SimulatedService(roomy, asked=ASKED, adapts=False).play(60)
    roomy = [SimulatedServer(cache=9000), SimulatedServer(cache=9000)]
    adapted = SimulatedService(roomy, asked=ASKED, adapts=True).play(60)

    assert set(adapted.limits) == {ASKED}
    assert adapted.finished == free.finished


def test_a_queue_that_the_server_never_works_off_is_kept_with_those_who_ask() -> None:
    def few() -> list[SimulatedServer]:
        return [SimulatedServer(cache=100_000, slots=32)]

    free = SimulatedService(few(), asked=ASKED, adapts=False).play(150)
    adapted = SimulatedService(few(), asked=ASKED, adapts=True).play(150)

    assert 40 <= adapted.limits[-1] < 45, "a quarter of what is sampled may wait"
    assert adapted.rate(since=20) > 0.99 * free.rate(since=20)
