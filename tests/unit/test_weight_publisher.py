"""A policy server that fails, hangs or talks nonsense never stops publishing to the others."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import PolicyServerError
from common.places import LEARNER
from common.wire.codec import Buffer, encode
from common.wire.hosting import Fate, Obeyed, ServerLoad, ServerState, not_done
from learner.coordination.membership import Membership
from learner.weights.channel import StagingChannel, take_snapshot
from learner.weights.control import ServerControl
from learner.weights.publisher import WeightPublisher
from learner.weights.served import UpdatedServer
from tests.waiting import wait_for
from tests.weight_server import LEARNERS, WeightServer, learners_wire, weight_servers
from tests.wires import WORKER_LIMITS, Place, a_place

NEVER = 3600.0


def state(value: float) -> dict[str, torch.Tensor]:
    return {"norm": torch.full((8,), value)}


class Publishing(WeightPublisher):
    """A publisher, and the roster that it tells what came of it; no check lets servers in."""

    membership: Membership

    def served(self) -> set[str]:
        """Who is sent what is published."""
        return {worker.server for worker in self._channel._workers.all}

    def holding(self) -> tuple[str, ...]:
        """Who has taken what was published last."""
        newest = self._newest_version()
        with self.membership.roster() as roster:
            return () if newest is None else tuple(s.name for s in roster.holding(newest))


@contextmanager
def publishing(
    servers: list[WeightServer],
    *,
    watch_every_s: float = NEVER,
    deadline_s: float = 10.0,
    return_s: float = 0.0,
    was_taken: bool = False,
) -> Iterator[Publishing]:
    with publishing_place(servers) as place, learners_wire() as wire:
        membership = Membership([server.place for server in servers])
        publisher = Publishing(
            membership,
            place.door,
            wire,
            return_s=return_s,
            was_taken=was_taken,
            stage_timeout_s=deadline_s,
            request_timeout_s=deadline_s,
            watch_every_s=watch_every_s,
        )
        publisher.membership = membership
        publisher.start()
        try:
            yield publisher
        finally:
            for server in servers:
                server.let_go.set()
            publisher.stop()


def publishing_place(servers: list[WeightServer]) -> AbstractContextManager[Place]:
    """Where the hosts of these servers may fetch weights."""
    return a_place({server.place.name: server.keys for server in servers}, limits=WORKER_LIMITS)


def test_every_server_takes_every_version() -> None:
    with weight_servers(2) as servers, publishing(servers) as publisher:
        for version in range(3):
            result = publisher.publish(version, state(version))

            assert result.acknowledged == publisher.holding() == tuple(s.name for s in servers)
        assert [server.swaps for server in servers] == [[0, 1, 2], [0, 1, 2]]


def test_a_server_that_hangs_delays_one_publish_and_no_other() -> None:
    with weight_servers(2) as servers, publishing(servers, deadline_s=1.0) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"swap", "state"}

        asked = servers[0].asked["state"]

        result = publisher.publish(1, state(1))
        publisher.publish(2, state(2))
        publisher.publish(3, state(3))

        assert servers[0].asked["state"] == asked + 1, "who hangs is not asked again"
        assert result.acknowledged == (servers[1].name,)
        assert "timed out" in result.failed[servers[0].name]
        assert servers[1].swaps == [0, 1, 2, 3]


def test_the_others_are_updated_while_one_hangs() -> None:
    with weight_servers(2) as servers, publishing(servers, deadline_s=20) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"swap"}
        under_way = threading.Thread(target=publisher.publish, args=(1, state(1)))
        under_way.start()
        servers[0].hung.wait(10)

        wait_for(lambda: servers[1].swaps == [0, 1])

        assert under_way.is_alive()
        servers[0].let_go.set()
        under_way.join(10)
        assert servers[0].swaps == [0, 1]


def test_publishing_goes_on_while_the_watcher_waits_for_a_server_that_hangs() -> None:
    with (
        weight_servers(2) as servers,
        publishing(servers, watch_every_s=0.01, deadline_s=20) as publisher,
    ):
        publisher.publish(0, state(0))
        servers[0].hanging = {"swap"}
        servers[0].restart()
        assert servers[0].hung.wait(10)

        result = publisher.publish(1, state(1))

        assert result.acknowledged == (servers[1].name,)
        assert "reports weight version 'default'" in result.failed[servers[0].name]
        servers[0].let_go.set()
        wait_for(lambda: len(publisher.holding()) == 2)
        assert servers[0].version == "1"


def test_a_restarted_server_gets_the_newest_weights_without_a_publish() -> None:
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(7, state(7))
        servers[0].restart()

        wait_for(lambda: servers[0].swaps == [7, 7])

        wait_for(lambda: publisher.holding() == (servers[0].name,))


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ([b"<html>not found</html>"], "message header cannot be read"),
        (encode(Obeyed(number=1)), "answered Obeyed to something else"),
        (encode(not_done(1, Fate.FAILED, "the cause")), "AskState: the cause"),
    ],
)
def test_an_answer_of_nonsense_is_that_servers_failure(
    answers: list[Buffer], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.weights.control._NUMBERS", itertools.repeat(1))
    with a_place({LEARNER: LEARNERS}) as place, learners_wire() as wire:
        control = ServerControl(wire, "s0", place.door.address, timeout_s=5)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(control.state)
            place.door.wait(5000)
            parcel = place.door.receive()
            assert parcel is not None
            place.door.send(parcel.identity, answers)

            with pytest.raises(PolicyServerError, match=f"policy server s0.*{cause}"):
                asked.result(5)
        place.door.close()


def test_an_error_nobody_thought_of_ends_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(0, state(0))
        broken = threading.Event()

        def fail(_: ServerControl) -> ServerState:
            broken.set()
            raise ZeroDivisionError("by a bug")

        with monkeypatch.context() as patch:
            patch.setattr(ServerControl, "state", fail)
            broken.wait(10)
            wait_for(lambda: "a policy server failed" in caplog.text)
            with pytest.raises(PolicyServerError, match=r"ZeroDivisionError.*by a bug"):
                publisher.publish(1, state(1))

        wait_for(lambda: publisher.holding() == (servers[0].name,))
        assert servers[0].version == "1"


def test_a_dead_engine_is_named_long_before_the_deadline() -> None:
    with weight_servers(1) as servers, publishing(servers, deadline_s=60) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"swap"}
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 1, state(1))
            assert servers[0].hung.wait(10)
            servers[0].end_engine("it was killed")

            with pytest.raises(PolicyServerError, match="Swap: vLLM has ended"):
                under_way.result(20)

        assert time.monotonic() - began < 10


def test_the_cause_of_a_failed_update_is_told() -> None:
    with weight_servers(1) as servers, publishing(servers) as publisher:
        publisher.publish(0, state(0))
        servers[0].failing = {"swap": "the true cause"}

        with pytest.raises(PolicyServerError, match="the true cause"):
            publisher.publish(1, state(1))

        assert servers[0].version == "torn"
        servers[0].failing = {}
        assert publisher.publish(2, state(2)).acknowledged


def test_a_server_whose_process_ended_is_named_so(tmp_path: Path) -> None:
    with weight_servers(1) as servers:
        gone = servers[0].place.address
    with socket.socket() as bound, socket.socket(socket.AF_UNIX) as left:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        left.bind(str(tmp_path / "left"))
        port = bound.getsockname()[1]
        unheard = replace(gone, bind=str(tmp_path / "left"))
        closed = replace(gone, bind="127.0.0.1", host="127.0.0.1", port=port)
        with learners_wire() as wire:
            for address in (gone, unheard, closed):
                with pytest.raises(PolicyServerError, match="its process has ended"):
                    ServerControl(wire, "s0", address, timeout_s=5).state()


def test_a_server_whose_process_ends_in_mid_call_is_named_so() -> None:
    with weight_servers(1) as servers, learners_wire() as wire:
        servers[0].hanging = {"state"}
        control = ServerControl(wire, "s0", servers[0].place.address, timeout_s=20)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(control.state)
            assert servers[0].hung.wait(10)
            servers[0].kill()

            with pytest.raises(PolicyServerError, match="its process has ended"):
                asked.result(10)
        servers[0].start()


def test_what_a_server_has_to_do_is_in_the_roster() -> None:
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        servers[0].load = ServerLoad(running=3, waiting=2, cache_share=0.5, preemptions=1)
        publisher.publish(0, state(0))

        def seen() -> ServerLoad:
            with publisher.membership.roster() as roster:
                return roster.server("s0").load

        wait_for(lambda: seen() == servers[0].load)
        assert publisher.membership.loads() == "s0: 3 running, 2 waiting, cache 50%, 1 preempted"


def test_a_server_that_did_not_answer_the_check_comes_back_by_an_update() -> None:
    with weight_servers(2) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(4, state(4))

        with publisher.membership.roster() as roster:
            seen = roster.server(servers[0].place.name)
        publisher.membership.fail(seen, "it did not answer")

        wait_for(lambda: servers[0].swaps == [4, 4])
        wait_for(lambda: len(publisher.holding()) == 2)


def test_a_publish_that_meets_the_watcher_at_work_is_done_all_the_same() -> None:
    """The only server was restarted, and is just being given the version before."""
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"swap"}
        servers[0].restart()
        assert servers[0].hung.wait(10)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 1, state(1))
            wait_for(lambda: publisher._newest_version() == 1)
            servers[0].let_go.set()

            assert under_way.result(10).acknowledged == (servers[0].name,)
        assert servers[0].version == "1"


def test_a_watcher_that_had_to_wait_for_a_publish_undoes_nothing() -> None:
    with (
        weight_servers(1) as (only,),
        publishing_place([only]) as place,
        learners_wire() as wire,
    ):
        channel = StagingChannel(place.door)
        channel.start()
        try:
            membership = Membership([only.place])
            name = only.name
            with membership.roster() as roster:
                seen = roster.server(name)
            server = UpdatedServer(
                seen, membership, channel, wire, stage_timeout_s=10, request_timeout_s=10
            )
            for version in (1, 2):
                channel.offer(take_snapshot(version, state(version)))
                server.update(version)

            server.update(1)

            with membership.roster() as roster:
                assert (roster.server(name).version, only.version) == (2, "2")
        finally:
            channel.stop()


def test_publishing_and_watching_never_take_a_sound_server_out() -> None:
    """The watcher looks as often as it can while versions change."""
    with weight_servers(2) as servers, publishing(servers, watch_every_s=0.0005) as publisher:
        for version in range(10):
            result = publisher.publish(version, state(version))
            assert result.failed == {}
        assert [server.swaps for server in servers] == [list(range(10))] * 2


def test_the_first_publish_of_a_learner_that_goes_on_waits_for_a_server_just_killed() -> None:
    with (
        weight_servers(1) as servers,
        publishing(
            servers, watch_every_s=0.01, deadline_s=5, return_s=20, was_taken=True
        ) as publisher,
    ):
        servers[0].failing = {"swap": "its engine is dead"}
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 2, state(2))
            wait_for(lambda: servers[0].asked["swap"] > 1)
            assert not under_way.done()
            servers[0].restart()
            servers[0].failing = {}

            assert under_way.result(10).acknowledged == (servers[0].name,)


def test_a_publish_waits_for_the_only_server_to_come_back() -> None:
    with (
        weight_servers(1) as servers,
        publishing(servers, watch_every_s=0.01, deadline_s=5, return_s=20) as publisher,
    ):
        publisher.publish(0, state(0))
        servers[0].failing = {"state": "no"}
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 1, state(1))
            wait_for(lambda: bool(publisher.membership.rotation.lost))
            assert not under_way.done()
            servers[0].restart()
            servers[0].failing = {}

            assert under_way.result(10).acknowledged == (servers[0].name,)


def test_a_server_that_joins_is_brought_to_the_newest_version_and_one_that_left_is_left_alone() -> (
    None
):
    with (
        weight_servers(2) as (first, second),
        publishing([first, second], watch_every_s=0.01) as publisher,
    ):
        with publisher.membership.roster() as roster:
            roster.leave(second.place.name)
        publisher.publish(0, state(0))
        assert second.swaps == []

        with publisher.membership.roster() as roster:
            roster.join(second.place.name, second.place.address)
        wait_for(lambda: publisher.holding() == (first.name, second.name))

        with publisher.membership.roster() as roster:
            roster.leave(second.place.name)
        wait_for(lambda: publisher.served() == {first.name})
        asked = second.asked["state"]
        publisher.publish(1, state(1))
        assert second.swaps == [0]
        assert second.asked["state"] <= asked + 1, "a look was under way"
