import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from actors.policy import PolicyClient
from common.errors import PolicyServerError
from common.places import Address
from common.wire.server_http import server_url

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(version: str = "0") -> web.Response:
    choice = {
        "token_ids": [5],
        "logprobs": {"content": [{"token_id": 5, "logprob": -0.5}]},
        "weight_versions": [{"version": version, "start": 0, "end": 1}],
        "finish_reason": "stop",
    }
    return web.Response(text=json.dumps({"choices": [choice]}))


def failing_first(failures: list[Handler]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        return await failures.pop(0)(request) if failures else answer()

    return handle


async def drop_connection(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def break_down(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="engine dead")


async def answer_with_torn_weights(_: web.Request) -> web.StreamResponse:
    return answer("torn")


async def never_answer(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def refuse(_: web.Request) -> web.StreamResponse:
    return web.Response(status=400, text="prompt is too long")


@pytest.fixture(params=["tcp", "unix"])
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Where servers may listen; of TCP, any free port."""
    if request.param == "unix":
        return (Address(bind=str(tmp_path / f"s{number}")) for number in itertools.count())
    return itertools.repeat(Address(bind="127.0.0.1", host="127.0.0.1"))


async def serve(handler: Handler, address: Address) -> tuple[web.AppRunner, Address]:
    """A running server, and where it listens."""
    app = web.Application()
    app.router.add_post("/inference/v1/generate", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    if address.is_unix:
        await web.UnixSite(runner, address.bind).start()
        return runner, address
    await web.TCPSite(runner, address.bind, address.port).start()
    return runner, replace(address, port=runner.addresses[0][1])


async def ask(
    handlers: list[Handler], addresses: Iterator[Address], *, requests: int = 1, attempts: int = 3
) -> PolicyClient:
    """Sends requests to one server per handler; the closed client, for its counters."""
    served = [await serve(handler, next(addresses)) for handler in handlers]
    try:
        async with PolicyClient(
            [server_url(address) for _, address in served],
            timeout_s=0.5,
            attempts=attempts,
            backoff_s=0.001,
        ) as client:
            for _ in range(requests):
                await client.generate([1, 2], max_tokens=4, temperature=1.0)
            return client
    finally:
        for runner, _ in served:
            await runner.cleanup()


@pytest.mark.parametrize(
    "failure", [drop_connection, break_down, answer_with_torn_weights, never_answer]
)
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
    with pytest.raises(PolicyServerError, match=r"3 of 3 attempts .*, at last: .*engine dead"):
        asyncio.run(ask([break_down], addresses))


def test_wrong_request_is_not_tried_again(addresses: Iterator[Address]) -> None:
    later_fails = failing_first([refuse, break_down, break_down])

    with pytest.raises(PolicyServerError, match="answered 400: prompt is too long"):
        asyncio.run(ask([later_fails], addresses))


def test_server_that_keeps_failing_is_taken_out_of_rotation(addresses: Iterator[Address]) -> None:
    asked = 0

    async def count_and_fail(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await break_down(request)

    asyncio.run(ask([count_and_fail, failing_first([])], addresses, requests=20))

    assert asked <= 3


def test_request_waits_for_a_server_that_starts_again(addresses: Iterator[Address]) -> None:
    async def ask_before_it_listens() -> PolicyClient:
        runner, address = await serve(failing_first([]), next(addresses))
        await runner.cleanup()
        url = server_url(address)
        async with PolicyClient([url], timeout_s=30, attempts=1, backoff_s=0.001) as client:
            request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
            while not client.statistics().retries:
                await asyncio.sleep(0)
            runner, _ = await serve(failing_first([]), address)
            await request
            await runner.cleanup()
            return client

    statistics = asyncio.run(ask_before_it_listens()).statistics()

    assert statistics.retries >= 1
    assert statistics.failures == 0


def test_server_that_never_comes_is_named_after_the_timeout() -> None:
    async def ask_nobody() -> None:
        async with PolicyClient(
            ["http://127.0.0.1:9"], timeout_s=0.05, attempts=5, backoff_s=0.001
        ) as client:
            await client.generate([1], max_tokens=4, temperature=1.0)

    with pytest.raises(
        PolicyServerError, match=r"127\.0\.0\.1:9 gave no generation after 0 of 5 attempts"
    ):
        asyncio.run(ask_nobody())


def test_requests_wait_for_a_rotation_and_leave_a_server_that_is_lost(
    addresses: Iterator[Address],
) -> None:
    async def lose_one() -> PolicyClient:
        asked = asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            asked.set()
            return await never_answer(request)

        dead, dead_address = await serve(hang, next(addresses))
        sound, sound_address = await serve(failing_first([]), next(addresses))
        try:
            async with PolicyClient([], timeout_s=30, attempts=1, backoff_s=0.001) as client:
                request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
                client.rotate([server_url(dead_address)])
                await asyncio.wait_for(asked.wait(), 10)
                client.rotate([], lost=[server_url(dead_address)])
                client.rotate([server_url(sound_address)], lost=[server_url(dead_address)])
                await asyncio.wait_for(request, 10)
                return client
        finally:
            await dead.cleanup()
            await sound.cleanup()

    statistics = asyncio.run(lose_one()).statistics()
    assert (statistics.tokens, statistics.retries, statistics.failures) == (1, 1, 0)


def test_a_request_that_nobody_may_be_asked_is_given_up_in_time() -> None:
    async def ask_nobody() -> None:
        async with PolicyClient([], timeout_s=0.05, attempts=1) as client:
            await client.generate([1], max_tokens=4, temperature=1.0)

    with pytest.raises(PolicyServerError, match="no policy server was in rotation for 0 s"):
        asyncio.run(ask_nobody())


def test_a_request_that_is_cancelled_is_not_made_again(addresses: Iterator[Address]) -> None:
    async def cancel() -> PolicyClient:
        runner, address = await serve(never_answer, next(addresses))
        try:
            async with PolicyClient([server_url(address)], timeout_s=30, attempts=3) as client:
                request = asyncio.create_task(client.generate([1], max_tokens=4, temperature=1.0))
                await asyncio.sleep(0)
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                return client
        finally:
            await runner.cleanup()

    assert asyncio.run(cancel()).statistics().retries == 0
