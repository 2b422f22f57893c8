"""An evaluation asks the servers that have the weights it is about, and no others."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.evaluate import servers_with
from common.errors import PolicyServerError
from common.places import Address, ServerPlace
from common.wire.sockets import Wire, new_key_pair
from tests.weight_server import ACTORS, weight_servers


def asked(version: int, places: Sequence[ServerPlace]) -> list[ServerPlace]:
    async def ask() -> list[ServerPlace]:
        with Wire(ACTORS) as wire:
            return await servers_with(version, places, wire)

    return asyncio.run(ask())


def test_only_servers_that_sample_with_the_version_are_asked() -> None:
    with weight_servers(3) as servers:
        places = [server.place for server in servers]
        nowhere = Address(bind="/nobody/listens", key=new_key_pair().public)
        gone = ServerPlace(name="gone", address=nowhere)
        servers[0].version, servers[2].version = "4", "torn"

        assert asked(4, [*places, gone]) == [places[0]]
        assert asked(0, [*places, gone]) == [places[1]], "it has what it was started with"


def test_where_no_server_has_the_version_each_is_named_with_what_it_says() -> None:
    with weight_servers(2) as servers:
        servers[0].version, servers[1].failing = "3", {"state": "it is ill"}

        with pytest.raises(
            PolicyServerError, match=r"version 4, .* \(s0: 3; s1: .*it is ill.*resume"
        ):
            asked(4, [server.place for server in servers])


def test_a_server_that_starts_again_is_waited_for() -> None:
    with weight_servers(1) as (server,), ThreadPoolExecutor() as pool:
        server.kill()
        asking = pool.submit(asked, 0, [server.place])
        with pytest.raises(TimeoutError):
            asking.result(0.7)
        server.start()

        assert asking.result(30) == [server.place]
