import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from actors.hosted import HostLine
from actors.inference.host.engine import EngineGoneError, WrongRequestError
from actors.policy import PolicyClient
from common.errors import PolicyServerError
from common.places import Address
from common.wire.hosting import Generate, Generated
from common.wire.sockets import Wire
from tests.played_policy import ASKER, Handler, PlayedPolicy, answer


def failing_first(failures: list[Handler]) -> Handler:
    async def handle(request: Generate) -> Generated:
        return await failures.pop(0)(request) if failures else answer(request)

    return handle


async def break_down(_: Generate) -> Generated:
    raise RuntimeError("out of luck")


async def answer_with_torn_weights(request: Generate) -> Generated:
    return answer(request, version=-1)


async def never_answer(_: Generate) -> Generated:
    await asyncio.Event().wait()
    raise AssertionError


async def refuse(_: Generate) -> Generated:
    raise WrongRequestError("prompt is too long")


async def be_away(_: Generate) -> Generated:
    raise EngineGoneError("vLLM is starting")


@pytest.fixture(params=["tcp", "unix"])
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Where servers may listen; of TCP, any free port."""
    if request.param == "unix":
        return (Address(bind=str(tmp_path / f"s{number}")) for number in itertools.count())
    return itertools.repeat(Address(bind="127.0.0.1", host="127.0.0.1"))


def client_of(
    servers: list[PlayedPolicy], wire: Wire, *, timeout_s: float = 30, attempts: int = 1
) -> PolicyClient:
    by_name = {f"s{number}": server for number, server in enumerate(servers)}
    return PolicyClient(
        list(by_name),
        lambda name: by_name[name].line(wire),
        timeout_s=timeout_s,
        attempts=attempts,
        backoff_s=0.001,
    )


async def ask(
    handlers: list[Handler], addresses: Iterator[Address], *, requests: int = 1, attempts: int = 3
) -> PolicyClient:
    """Sends requests to one server per handler; the closed client, for its counters."""
    async with AsyncExitStack() as stack:
        servers = [PlayedPolicy(next(addresses), handler) for handler in handlers]
        for server in servers:
            await stack.enter_async_context(server.served())
        wire = stack.enter_context(Wire(ASKER))
        client = client_of(servers, wire, timeout_s=0.5, attempts=attempts)
        async with client:
            for _ in range(requests):
                await client.generate([1, 2], max_tokens=4, temperature=1.0)
        return client


@pytest.mark.parametrize("failure", [break_down, answer_with_torn_weights, never_answer, be_away])
def test_attempt_that_fails_is_made_again_and_counted(
    failure: Handler, addresses: Iterator[Address]
) -> None:
    client = asyncio.run(ask([failing_first([failure, failure])], addresses))

    statistics = client.statistics()
    assert (statistics.requests, statistics.tokens) == (1, 1)
    assert (statistics.retries, statistics.failures) == (2, 0)


def test_request_is_given_up_after_all_attempts_with_the_last_cause(
    addresses: Iterator[Address],
) -> None:
    with pytest.raises(PolicyServerError, match=r"3 of 3 attempts .*, at last: .*out of luck"):
        asyncio.run(ask([break_down], addresses))


def test_wrong_request_is_not_tried_again(addresses: Iterator[Address]) -> None:
    later_fails = failing_first([refuse, break_down, break_down])

    with pytest.raises(PolicyServerError, match="refused: prompt is too long"):
        asyncio.run(ask([later_fails], addresses))


def test_server_that_keeps_failing_is_taken_out_of_rotation(addresses: Iterator[Address]) -> None:
    asked = 0

    async def count_and_fail(request: Generate) -> Generated:
        nonlocal asked
        asked += 1
        return await break_down(request)

    asyncio.run(ask([count_and_fail, failing_first([])], addresses, requests=20))

    assert asked <= 3


def test_request_waits_for_a_server_that_starts_again(addresses: Iterator[Address]) -> None:
    async def ask_before_it_listens() -> PolicyClient:
        server = PlayedPolicy(next(addresses), failing_first([]))
        async with server.served():
            pass
        with Wire(ASKER) as wire:
            async with client_of([server], wire) as client:
                request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
                while not client.statistics().retries:
                    await asyncio.sleep(0)
                async with server.served():
                    await request
                return client

    statistics = asyncio.run(ask_before_it_listens()).statistics()

    assert statistics.retries >= 1
    assert statistics.failures == 0


@pytest.mark.parametrize("what", ["its vLLM", "its process"])
def test_a_server_that_is_killed_costs_what_it_was_asked_a_retry(
    addresses: Iterator[Address], what: str
) -> None:
    asked: list[int] = []

    async def hang_once(request: Generate) -> Generated:
        asked.append(request.number)
        return await never_answer(request) if len(asked) <= 8 else answer(request)

    async def kill() -> PolicyClient:
        server = PlayedPolicy(next(addresses), hang_once)
        with Wire(ASKER) as wire:
            client = client_of([server], wire)
            async with AsyncExitStack() as process, client:
                await process.enter_async_context(server.served())
                requests = [
                    asyncio.create_task(client.generate([n], max_tokens=4, temperature=1.0))
                    for n in range(8)
                ]
                while len(asked) < 8:
                    await asyncio.sleep(0)
                if what == "its vLLM":
                    assert server.engine is not None
                    server.engine.over.set()
                else:
                    await process.aclose()
                    await process.enter_async_context(server.served())
                await asyncio.gather(*requests)
                assert server.lives == 2
            return client

    statistics = asyncio.run(kill()).statistics()

    assert (statistics.tokens, statistics.failures) == (8, 0)
    assert statistics.retries >= 8


def test_server_that_never_comes_is_named_after_the_timeout(tmp_path: Path) -> None:
    async def ask_nobody() -> None:
        nobody = Address(bind=str(tmp_path / "nobody"), key=ASKER.public)
        with Wire(ASKER) as wire:
            server = PlayedPolicy(nobody, never_answer)
            async with client_of([server], wire, timeout_s=0.3, attempts=5) as client:
                await client.generate([1], max_tokens=4, temperature=1.0)

    with pytest.raises(PolicyServerError, match="s0 gave no generation after 0 of 5 attempts"):
        asyncio.run(ask_nobody())


def test_requests_wait_for_a_rotation_and_leave_a_server_that_is_lost(
    addresses: Iterator[Address],
) -> None:
    async def lose_one() -> PolicyClient:
        asked = asyncio.Event()

        async def hang(request: Generate) -> Generated:
            asked.set()
            return await never_answer(request)

        servers = [
            PlayedPolicy(next(addresses), hang),
            PlayedPolicy(next(addresses), failing_first([])),
        ]
        with Wire(ASKER) as wire:
            async with servers[0].served(), servers[1].served(), client_of(servers, wire) as client:
                client.rotate([])
                request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
                client.rotate(["s0"])
                await asyncio.wait_for(asked.wait(), 10)
                client.rotate([], lost=["s0"])
                client.rotate(["s1"], lost=["s0"])
                await asyncio.wait_for(request, 10)
                return client

    statistics = asyncio.run(lose_one()).statistics()
    assert (statistics.tokens, statistics.retries, statistics.failures) == (1, 1, 0)


def test_a_request_that_nobody_may_be_asked_is_given_up_in_time() -> None:
    async def ask_nobody() -> None:
        async with PolicyClient([], connect_to_nobody, timeout_s=0.05, attempts=1) as client:
            await client.generate([1], max_tokens=4, temperature=1.0)

    with pytest.raises(PolicyServerError, match="no policy server was in rotation for 0 s"):
        asyncio.run(ask_nobody())


def connect_to_nobody(name: str) -> HostLine:
    raise AssertionError(f"nobody was to be asked, not even {name}")


def test_a_request_that_is_cancelled_is_not_made_again_and_given_up(
    addresses: Iterator[Address],
) -> None:
    given_up, asked = asyncio.Event(), asyncio.Event()

    async def hang(request: Generate) -> Generated:
        asked.set()
        try:
            return await never_answer(request)
        finally:
            given_up.set()

    async def cancel() -> PolicyClient:
        server = PlayedPolicy(next(addresses), hang)
        with Wire(ASKER) as wire:
            async with server.served(), client_of([server], wire, attempts=3) as client:
                request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
                await asyncio.wait_for(asked.wait(), 10)
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                await asyncio.wait_for(given_up.wait(), 10)
                return client

    assert asyncio.run(cancel()).statistics().retries == 0
