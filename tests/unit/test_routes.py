"""One beginning goes to one server, as far as its load allows; few move when a rotation does."""

import asyncio
import random
from collections import Counter

from actors.routes import AskedServer, chosen

STARTS = [[random.Random(seed).randrange(1000) for _ in range(20)] for seed in range(300)]


def servers(count: int) -> list[AskedServer]:
    return [AskedServer(name=f"s{number}") for number in range(count)]


def homes(among: list[AskedServer]) -> list[str]:
    return [chosen(among, start, now=0.0).name for start in STARTS]


def test_beginnings_are_spread_and_each_keeps_its_server() -> None:
    among = servers(3)

    found = homes(among)

    assert found == homes(list(reversed(among)))
    assert min(Counter(found).values()) > 60


def test_only_the_beginnings_of_a_server_that_goes_are_moved() -> None:
    among = servers(3)
    before, after = homes(among), homes(among[:2])

    kept = [(a, b) for a, b in zip(before, after, strict=True) if a != among[2].name]
    assert all(a == b for a, b in kept)
    assert len(kept) < len(before)


def test_a_server_that_has_much_more_to_do_is_passed_over() -> None:
    async def ask() -> Counter[str]:
        among = servers(2)
        gate = asyncio.Event()

        async def post() -> bytes:
            await gate.wait()
            return b""

        for _ in range(40):  # all prompts begin alike
            chosen(among, STARTS[0], now=0.0).begin(post())
        loads = Counter({server.name: server.in_flight for server in among})
        gate.set()
        await asyncio.gather(*(task for server in among for task in server.under_way))
        return loads

    loads = asyncio.run(ask())

    assert loads.total() == 40
    assert max(loads.values()) - min(loads.values()) <= 5


def test_who_failed_last_is_asked_after_the_others() -> None:
    first, second = servers(2)
    first.failures_in_row = 1

    assert homes([first, second]) == [second.name] * len(STARTS)
    first.failures_in_row = 0
    assert set(homes([first, second])) == {first.name, second.name}


def test_who_is_benched_is_asked_only_where_all_are() -> None:
    first, second = servers(2)
    first.benched_until = 5.0

    assert {chosen([first, second], start, now=1.0).name for start in STARTS} == {second.name}
    assert chosen([first], STARTS[0], now=1.0) is first
