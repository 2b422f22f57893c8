"""As many leases are out as let servers sample most, whatever they say; and no fewer."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from common.places import Address
from common.wire.hosting import ServerLoad
from learner.coordination.credit import Credit
from learner.coordination.roster import LiveServer
from tests.simulated_servers import SimulatedServer, SimulatedService

FLOOR, ASKED = 4, 96
REPORTS = 6
BOUNDED = 60
"""Rounds in which calm leads to the top: a wait, and three for each of a dozen steps."""


def always(value: int) -> Callable[[int], int]:
    """The same, however many leases are out."""
    return lambda _: value


AS_EVER, NONE = always(100), always(0)


def above(bearable: int, value: int = 9) -> Callable[[int], int]:
    """Where more are out than that."""
    return lambda out: value if out > bearable else 0


class Servers:
    """Policy servers that say how they are, and what is out."""

    def __init__(self, *names: str, floor: int = FLOOR) -> None:
        self.credit = Credit(floor=floor)
        self.ended = 0
        self.most = ASKED
        self.limits: list[int] = []
        """After each round."""
        self.seen = {
            name: LiveServer(name=name, address=Address(bind=f"/{name}"), life=0, version=0)
            for name in names or ("s0",)
        }

    def say(self, *, rate: int, preempted: int = 0, waiting: int = 0, seconds: float = 1.0) -> None:
        """All servers have sampled for so long, and report."""
        for name, seen in self.seen.items():
            was = seen.load
            load = ServerLoad(
                running=20, waiting=waiting, preemptions=was.preemptions + preempted,
                sampled=was.sampled + round(rate * seconds), busy_s=was.busy_s + seconds,
            )  # fmt: skip
            self.seen[name] = replace(seen, load=load, reports=seen.reports + 1)
        self.credit.hear(tuple(self.seen.values()), asked=ASKED)

    def play(
        self,
        rounds: int,
        *,
        rate: Callable[[int], int] = AS_EVER,
        preempted: Callable[[int], int] = NONE,
        waiting: Callable[[int], int] = NONE,
        held_back: bool = True,
    ) -> list[int]:
        """Rounds in which all that is out ends and servers report; limits after each."""
        for _ in range(rounds):
            out = min(self.most, self.limit)
            self.ended += out
            self.credit.handed_out(out, ended=self.ended, held_back=held_back and out < ASKED)
            for _ in range(REPORTS):
                self.say(rate=rate(out), preempted=preempted(out), waiting=waiting(out))
            self.limits.append(self.limit)
        return self.limits[-rounds:]

    @property
    def limit(self) -> int:
        return self.credit.limit(ASKED)


def trying(*names: str) -> Servers:
    """Servers that preempted: fewer leases are tried, and not measured yet."""
    servers = Servers(*names)
    assert servers.play(4, preempted=always(9)) == [ASKED, ASKED, ASKED, ASKED * 3 // 4]
    return servers


def test_after_trouble_three_quarters_of_what_was_out_are_tried() -> None:
    trying("s0")
    trying("s0", "s1")
    servers = Servers()
    servers.most = 40
    assert servers.play(4, preempted=always(9))[-1] == 30, "not of what might have been"


def test_fewer_are_kept_and_tried_further_while_the_rate_is_as_good_and_trouble_lasts() -> None:
    servers = trying()
    limits = servers.play(200, preempted=above(54))
    assert limits[:6] == [72, 72, 54, 54, 54, 72], "more is tried where there is no trouble"
    assert limits.count(54) > 160, "and does not help"


def test_fewer_that_sample_less_are_taken_back_and_tried_later_each_time_up_to_a_bound() -> None:
    servers = trying()
    limits = servers.play(400, rate=lambda out: out, preempted=always(9))
    begins = [i for i in range(1, 400) if limits[i] < limits[i - 1] == ASKED]
    waits = [after - before for before, after in pairwise(begins)]
    assert waits == sorted(waits)
    assert 16 < waits[-1] < 24
    assert set(limits[3:]) == {ASKED, ASKED * 7 // 8}, "by less, once it was worse"


def test_more_are_kept_if_the_rate_rises_whatever_the_trouble() -> None:
    servers = trying()
    servers.play(100, preempted=always(9))
    assert servers.limit < 20
    servers.play(150, rate=lambda out: min(out, 60), preempted=always(9))
    assert 50 <= servers.limit <= 70


def test_nothing_is_measured_before_what_is_out_has_fallen_to_the_limit_and_turned_over() -> None:
    servers = trying()
    for ended in range(50):
        servers.credit.handed_out(ASKED - 1, ended=servers.ended + ended, held_back=True)
        servers.say(rate=1)
    servers.ended += 50
    for ended in (0, 71, 72, 143):
        servers.credit.handed_out(72, ended=servers.ended + ended, held_back=True)
        for _ in range(50):
            servers.say(rate=1)
        assert servers.limit == 72
    servers.credit.handed_out(72, ended=servers.ended + 144, held_back=True)
    servers.say(rate=1)
    assert servers.limit == ASKED


def test_what_was_sampled_counts_by_the_time_at_work_alone() -> None:
    servers = trying()
    for _ in range(3):
        servers.ended += 72
        servers.credit.handed_out(72, ended=servers.ended, held_back=True)
        for _ in range(REPORTS):
            servers.say(rate=100, preempted=9, seconds=0.25)
    assert servers.limit == 54, "a quarter of the tokens in a quarter of the time"


def test_servers_that_are_others_or_begin_again_end_what_is_tried() -> None:
    servers = trying("s0", "s1")
    del servers.seen["s1"]
    servers.say(rate=100)
    assert servers.limit == ASKED

    servers = trying()
    servers.seen["s0"] = replace(servers.seen["s0"], life=1)
    servers.say(rate=100)
    assert servers.limit == ASKED

    servers = trying()
    servers.seen["s0"] = replace(servers.seen["s0"], load=ServerLoad())
    servers.say(rate=100)
    assert servers.limit == ASKED


def test_only_a_queue_that_never_empties_is_trouble() -> None:
    servers = Servers()
    counts = [45, 45, 45, 5]

    def sometimes_short(_: int) -> int:
        counts.append(counts.pop(0))
        return counts[0]

    assert set(servers.play(50, waiting=sometimes_short)) == {ASKED}, "a quarter may wait"
    assert min(servers.play(6, waiting=always(6))) < ASKED


def test_the_limit_stays_at_the_size_of_a_group() -> None:
    servers = Servers()
    servers.play(200, preempted=always(9))
    assert min(servers.limits) == FLOOR

    servers = Servers(floor=ASKED + 1)
    assert set(servers.play(50, preempted=always(9))) == {ASKED}
    assert not servers.credit.is_over(ASKED)


def test_with_calm_and_work_held_back_the_limit_comes_to_the_top_in_bounded_rounds() -> None:
    servers = Servers()
    servers.play(200, preempted=always(9))
    assert servers.limit < 10
    limits = servers.play(BOUNDED)
    assert limits == sorted(limits)
    assert servers.limit == ASKED
    assert not servers.credit.is_over(10 * ASKED), "there is no limit any more"


def test_more_are_tried_only_where_the_limit_is_felt() -> None:
    servers = trying()
    before = servers.limit
    assert set(servers.play(50, held_back=False)) == {before}


def play(seed: int) -> bool:
    """One random history; returns whether the limit was ever below the top."""
    chance = random.Random(seed)
    floor, asked = chance.randint(1, 16), chance.randint(0, 200)
    credit, ended, out, is_troubled = Credit(floor=floor), 0, 0, False
    names = [f"s{number}" for number in range(chance.randint(1, 3))]
    place = Address(bind="/s")
    seen = {n: LiveServer(name=n, address=place, life=0, version=0, reports=1) for n in names}
    limited, may_trouble = False, seed % 3 > 0
    events = ["report"] * 30 + ["hand out"] * 10 + ["sessions"] + ["die", "leave"] * (seed % 2)
    for _ in range(400):
        before = credit.limit(asked)
        event, name = chance.choice(events), chance.choice(names)
        if event == "report" and name in seen:
            was = seen[name].load
            fresh = chance.randint(0, 30) * chance.choice([0, 0, 1]) * may_trouble
            queue = chance.randint(0, 60) * may_trouble
            load = ServerLoad(running=chance.randint(0, 40), waiting=queue,
                              preemptions=was.preemptions + fresh,
                              sampled=was.sampled + chance.randint(0, 100),
                              busy_s=was.busy_s + chance.choice([0, 1, 5]))  # fmt: skip
            is_troubled = is_troubled or bool(fresh or queue)
            seen[name] = replace(seen[name], load=load, reports=seen[name].reports + 1)
            credit.hear(tuple(seen.values()), asked=asked)
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


def dear(noise: float = 0.0) -> SimulatedServer:
    """Computing again takes as long as sampling; room for 36 sequences."""
    return SimulatedServer(cache=1000, noise=noise)


def cheap(noise: float = 0.0) -> SimulatedServer:
    """A round takes as long for one sequence as for many."""
    return SimulatedServer(
        cache=1000, round_s=0.2, sequence_s=0.0003, prompt_block_s=5e-5, noise=noise
    )


def served(
    server: SimulatedServer, *, asked: int = ASKED, adapts: bool = False
) -> SimulatedService:
    return SimulatedService([server], asked=asked, adapts=adapts)


def test_where_computing_again_is_dear_the_rate_comes_close_to_the_best_fixed_credit() -> None:
    free, best = (served(dear(), asked=asked).play(150) for asked in (ASKED, 36))
    assert free.rate(since=20) < 0.75 * best.rate(since=20), "most is done twice"
    adapted = served(dear(noise=0.05), adapts=True).play(1100)

    assert adapted.rate(since=500) > 0.95 * best.rate(since=20)


def test_where_computing_again_is_cheap_nothing_is_lost() -> None:
    free, few = (served(cheap(), asked=asked).play(150) for asked in (ASKED, 30))
    assert few.rate(since=20) < 0.8 * free.rate(since=20), "many at once are worth it"
    adapted = served(cheap(noise=0.05), adapts=True).play(1100)

    assert adapted.rate(since=20) > 0.97 * free.rate(since=20)


def test_nothing_is_lost_where_the_servers_bear_everything() -> None:
    roomy = [SimulatedServer(cache=9000), SimulatedServer(cache=9000)]
    free = SimulatedService(roomy, asked=ASKED, adapts=False).play(60)
    roomy = [SimulatedServer(cache=9000), SimulatedServer(cache=9000)]
    adapted = SimulatedService(roomy, asked=ASKED, adapts=True).play(60)

    assert set(adapted.limits) == {ASKED}
    assert adapted.finished == free.finished


def test_a_queue_that_the_server_never_works_off_is_kept_with_those_who_ask() -> None:
    def few() -> SimulatedServer:
        return SimulatedServer(cache=100_000, slots=32)

    free = served(few()).play(150)
    adapted = served(few(), adapts=True).play(700)

    assert sorted(adapted.limits)[len(adapted.limits) // 2] <= 46, "a quarter may wait"
    assert adapted.rate(since=20) > 0.98 * free.rate(since=20)
