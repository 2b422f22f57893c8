"""A policy server that fails, hangs or talks nonsense never stops publishing to the others."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from common.errors import PolicyServerError
from learner.coordination.membership import Membership
from learner.weights.channel import StagingChannel, take_snapshot
from learner.weights.control import ServerControl
from learner.weights.publisher import WeightPublisher
from learner.weights.served import UpdatedServer
from tests.waiting import wait_for
from tests.weight_server import WeightServer, weight_servers
from tests.wires import WORKER_LIMITS, Place, a_place

NEVER = 3600.0


def state(value: float) -> dict[str, torch.Tensor]:
    return {"norm": torch.full((8,), value)}


class Publishing(WeightPublisher):
    """A publisher, and the roster that it tells what came of it; no check lets servers in."""

    membership: Membership

    def holding(self) -> tuple[str, ...]:
        """Who has taken what was published last."""
        newest = self._newest_version()
        with self.membership.roster() as roster:
            return () if newest is None else tuple(s.url for s in roster.holding(newest))


@contextmanager
def publishing(
    servers: list[WeightServer],
    *,
    watch_every_s: float = NEVER,
    deadline_s: float = 10.0,
    return_s: float = 0.0,
) -> Iterator[Publishing]:
    with publishing_place(servers) as place:
        membership = Membership([server.place for server in servers])
        publisher = Publishing(
            membership,
            place.door,
            return_s=return_s,
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
    """Where the workers of these servers may fetch weights."""
    return a_place({server.place.name: server.keys for server in servers}, limits=WORKER_LIMITS)


def test_every_server_takes_every_version() -> None:
    with weight_servers(2) as servers, publishing(servers) as publisher:
        for version in range(3):
            result = publisher.publish(version, state(version))

            assert result.acknowledged == publisher.holding() == tuple(s.url for s in servers)
        assert [server.swaps for server in servers] == [[0, 1, 2], [0, 1, 2]]


def test_a_server_that_hangs_delays_one_publish_and_no_other() -> None:
    with weight_servers(2) as servers, publishing(servers, deadline_s=0.3) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"/pause", "/weight_info", "/health", "/resume"}

        asked = servers[0].asked["/weight_info"]

        result = publisher.publish(1, state(1))
        publisher.publish(2, state(2))
        publisher.publish(3, state(3))

        assert servers[0].asked["/weight_info"] == asked + 1, "who hangs is not asked again"
        assert result.acknowledged == (servers[1].url,)
        assert "timed out" in result.failed[servers[0].url]
        assert servers[1].swaps == [0, 1, 2, 3]


def test_the_others_are_updated_while_one_hangs() -> None:
    with weight_servers(2) as servers, publishing(servers, deadline_s=20) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"/pause"}
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
        servers[0].hanging = {"/get_world_size"}
        servers[0].restart()
        assert servers[0].hung.wait(10)

        result = publisher.publish(1, state(1))

        assert result.acknowledged == (servers[1].url,)
        assert "reports weight version 'default'" in result.failed[servers[0].url]
        servers[0].let_go.set()
        wait_for(lambda: len(publisher.holding()) == 2)
        assert servers[0].version == "1"


def test_a_restarted_server_gets_the_newest_weights_without_a_publish() -> None:
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(7, state(7))
        servers[0].restart()

        wait_for(lambda: servers[0].swaps == [7, 7])

        wait_for(lambda: publisher.holding() == (servers[0].url,))


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/weight_info", b"<html>not found</html>"),
        ("/weight_info", b"[]"),
        ("/weight_info", b'"weight_version"'),
        ("/get_world_size", b'{"world_size": "two"}'),
    ],
)
def test_an_answer_of_nonsense_is_that_servers_failure(path: str, answer: bytes) -> None:
    with weight_servers(2) as servers, publishing(servers) as publisher:
        servers[0].answers[path] = answer

        result = publisher.publish(0, state(0))

        assert result.acknowledged == (servers[1].url,)
        assert servers[0].url in result.failed[servers[0].url]


def test_an_error_nobody_thought_of_ends_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with weight_servers(1) as servers, publishing(servers, watch_every_s=0.01) as publisher:
        publisher.publish(0, state(0))
        broken = threading.Event()

        def version(_: ServerControl) -> str:
            broken.set()
            raise ZeroDivisionError("by a bug")

        with monkeypatch.context() as patch:
            patch.setattr(ServerControl, "version", version)
            broken.wait(10)
            wait_for(lambda: "a policy server failed" in caplog.text)
            with pytest.raises(PolicyServerError, match=r"ZeroDivisionError.*by a bug"):
                publisher.publish(1, state(1))

        wait_for(lambda: publisher.holding() == (servers[0].url,))
        assert servers[0].version == "1"


def test_a_dead_engine_is_named_long_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.weights.control._ASK_HEALTH_EVERY_S", 0.1)
    with weight_servers(1) as servers, publishing(servers, deadline_s=60) as publisher:
        publisher.publish(0, state(0))
        servers[0].hanging = {"/update_weights"}
        servers[0].status["/health"] = 503
        began = time.monotonic()

        with pytest.raises(PolicyServerError, match=r"will get no answer: .*engine has died"):
            publisher.publish(1, state(1))

        assert time.monotonic() - began < 10
        assert servers[0].version == "torn"


def test_the_cause_of_a_failed_update_is_told_and_not_that_of_the_clean_up() -> None:
    with weight_servers(1) as servers, publishing(servers) as publisher:
        publisher.publish(0, state(0))
        servers[0].status |= {"/update_weights": 500, "/resume": 500}
        servers[0].answers["/update_weights"] = b"the true cause"

        with pytest.raises(PolicyServerError, match="the true cause"):
            publisher.publish(1, state(1))

        servers[0].status, servers[0].answers = {}, {}
        assert publisher.publish(2, state(2)).acknowledged, "the update that was cut off is closed"


def test_a_server_whose_process_ended_is_named_so(tmp_path: Path) -> None:
    with weight_servers(1) as servers:
        gone = servers[0].url
    with socket.socket() as bound, socket.socket(socket.AF_UNIX) as left:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        left.bind(str(tmp_path / "left"))
        port = bound.getsockname()[1]
        for url in (gone, f"unix:{tmp_path}/left", f"http://127.0.0.1:{port}"):
            with pytest.raises(PolicyServerError, match="its process has ended"):
                ServerControl(url, timeout_s=5).version()


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
        servers[0].hanging = {"/pause"}
        servers[0].restart()
        assert servers[0].hung.wait(10)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 1, state(1))
            wait_for(lambda: publisher._newest_version() == 1)
            servers[0].let_go.set()

            assert under_way.result(10).acknowledged == (servers[0].url,)
        assert servers[0].version == "1"


def test_a_watcher_that_had_to_wait_for_a_publish_undoes_nothing() -> None:
    with weight_servers(1) as (http,), publishing_place([http]) as place:
        channel = StagingChannel(place.door)
        channel.start()
        try:
            membership = Membership([http.place])
            name = http.place.name
            with membership.roster() as roster:
                seen = roster.server(name)
            server = UpdatedServer(
                seen, membership, channel, stage_timeout_s=10, request_timeout_s=10
            )
            for version in (1, 2):
                channel.offer(take_snapshot(version, state(version)))
                server.update(version)

            server.update(1)

            with membership.roster() as roster:
                assert (roster.server(name).version, http.version) == (2, "2")
        finally:
            channel.stop()


def test_publishing_and_watching_never_take_a_sound_server_out() -> None:
    """The watcher looks as often as it can while versions change."""
    with weight_servers(2) as servers, publishing(servers, watch_every_s=0.0005) as publisher:
        for version in range(10):
            result = publisher.publish(version, state(version))
            assert result.failed == {}
        assert [server.swaps for server in servers] == [list(range(10))] * 2


def test_a_publish_waits_for_the_only_server_to_come_back() -> None:
    with (
        weight_servers(1) as servers,
        publishing(servers, watch_every_s=0.01, deadline_s=5, return_s=20) as publisher,
    ):
        publisher.publish(0, state(0))
        servers[0].status["/weight_info"] = 500
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(publisher.publish, 1, state(1))
            wait_for(lambda: bool(publisher.membership.rotation.lost))
            assert not under_way.done()
            servers[0].restart()
            servers[0].status = {}

            assert under_way.result(10).acknowledged == (servers[0].url,)


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
        wait_for(lambda: publisher.holding() == (first.url, second.url))

        with publisher.membership.roster() as roster:
            roster.leave(second.place.name)
        asked = second.asked["/weight_info"]
        publisher.publish(1, state(1))
        assert second.swaps == [0]
        assert second.asked["/weight_info"] <= asked + 1, "a look was under way"
