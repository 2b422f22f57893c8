"""Whom the host of a policy server lets in: who is in its plan, and who the learner says."""

import asyncio
from collections.abc import Sequence

import pytest

from actors.hosted import HostLine
from actors.policy import PolicyClient
from common.errors import PolicyServerError
from common.wire.codec import encode
from common.wire.hosting import Admit, Guest
from common.wire.keys import KeyPair
from common.wire.sockets import UndeliverableError, Wire, new_key_pair
from learner.weights.control import ServerControl
from tests.unit.test_weight_publisher import publishing, state
from tests.waiting import wait_for
from tests.weight_server import ACTORS, WeightServer, learners_wire, weight_servers


def play(prompt: Sequence[int], most: int) -> tuple[list[int], list[float]]:
    return [5], [-0.5]


async def ask(server: WeightServer, keys: KeyPair, who: str, *, timeout_s: float = 10) -> int:
    """What somebody samples there, within the time."""
    with Wire(keys) as wire:
        async with PolicyClient(
            [server.name],
            lambda _: HostLine(wire, server.place.address, who=who),
            timeout_s=timeout_s,
            attempts=1,
            backoff_s=0.01,
        ) as client:
            generation = await client.generate([1], max_tokens=1, temperature=1.0)
            return int(generation.token_ids[0])


def test_who_joins_is_let_in_by_every_host_on_the_learners_word_also_by_one_that_began_again() -> (
    None
):
    guest = new_key_pair()
    with (
        weight_servers(2) as servers,
        publishing(servers, watch_every_s=0.02) as publisher,
    ):
        for server in servers:
            server.generate = play
        publisher.publish(0, state(0))
        with pytest.raises(PolicyServerError, match=r"does not let us in"):
            asyncio.run(ask(servers[0], guest, "a7", timeout_s=0.3))

        publisher.membership.admit(Guest(name="a7", key=guest.public))
        assert [asyncio.run(ask(server, guest, "a7")) for server in servers] == [5, 5]

        servers[0].restart()
        wait_for(lambda: servers[0].swaps == [0, 0])
        assert asyncio.run(ask(servers[0], guest, "a7")) == 5


def test_a_line_that_was_refused_leads_in_once_the_host_knows_the_member() -> None:
    guest = new_key_pair()

    async def ask_before(server: WeightServer, control: ServerControl) -> int:
        with Wire(guest) as wire:
            async with PolicyClient(
                ["s0"], lambda _: HostLine(wire, server.place.address, who="a7"),
                timeout_s=10, attempts=1, backoff_s=0.01,
            ) as client:  # fmt: skip
                request = asyncio.create_task(client.generate([1], max_tokens=1, temperature=1.0))
                while not client.statistics().retries:
                    await asyncio.sleep(0)
                await asyncio.to_thread(control.admit, [Guest(name="a7", key=guest.public)])
                return int((await request).token_ids[0])

    with weight_servers(1) as (server,), learners_wire() as wire:
        server.generate = play
        server.version = "0"
        control = ServerControl(wire, "s0", server.place.address, timeout_s=10)
        assert asyncio.run(ask_before(server, control)) == 5


def test_a_line_that_was_refused_while_something_held_its_loop_leads_in_later_all_the_same() -> (
    None
):
    guest = new_key_pair()

    async def ask_held(server: WeightServer, control: ServerControl) -> int:
        with Wire(guest) as wire:
            line = HostLine(wire, server.place.address, who="a7")
            refused = wire.connect(server.place.address, identity=b"a7#x", watched=True)
            with pytest.raises(UndeliverableError):  # as long as this line, the loop is held
                refused.receive(timeout_ms=10_000)
            refused.close()
            control.admit([Guest(name="a7", key=guest.public)])
            async with PolicyClient(
                ["s0"], lambda _: line, timeout_s=10, attempts=1, backoff_s=0.01
            ) as client:
                return int((await client.generate([1], max_tokens=1, temperature=1.0)).token_ids[0])

    with weight_servers(1) as (server,), learners_wire() as wire:
        server.generate = play
        server.version = "0"
        control = ServerControl(wire, "s0", server.place.address, timeout_s=10)
        assert asyncio.run(ask_held(server, control)) == 5


def test_nobody_but_the_learner_lets_others_in_and_what_is_no_key_is_said() -> None:
    guest = new_key_pair()
    with weight_servers(1) as (server,), learners_wire() as wire, Wire(ACTORS) as actors:
        server.generate = play
        server.version = "0"
        line = actors.connect(server.place.address, identity=b"a0#x")
        line.send(encode(Admit(number=1, guests=(Guest(name="a7", key=guest.public),))))
        assert asyncio.run(ask(server, ACTORS, "a0")) == 5, "it has read what came before"
        with pytest.raises(PolicyServerError, match=r"does not let us in"):
            asyncio.run(ask(server, guest, "a7", timeout_s=0.3))

        control = ServerControl(wire, "s0", server.place.address, timeout_s=10)
        with pytest.raises(PolicyServerError, match="Admit: ValueError"):
            control.admit([Guest(name="a8", key="no key")])
