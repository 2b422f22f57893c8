"""Strangers, broken messages and floods on the coordinator's port: nothing is given, or ends."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from common.errors import LZeroError
from common.wire.codec import SCHEMA_VERSION, Buffer, Record, decode, encode
from common.wire.doorkeeper import present_key
from common.wire.records import Task, TaskLease, Trajectory
from common.wire.session import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
    Welcome,
)
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from tests.handshake import connect
from tests.makers import make_trajectory

SECRET = "the gold answer"


@pytest.fixture
def task() -> Task:
    return Task(task_id="t", question="?", answers=(SECRET,))


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return TrajectoryStore(tmp_path, limit_bytes=1 << 20)


@pytest.fixture
def intake(task: Task, store: TrajectoryStore) -> Iterator[Intake]:
    coordinator = Coordinator(
        TaskOrder([task], seed=0),
        groups_per_batch=1, group_size=2, max_staleness=0, total_batches=50,
        max_buffered_bytes=1 << 30,
    )  # fmt: skip
    with Intake(coordinator, store, run_key="key", host="127.0.0.1", port=0) as running:
        yield running


class Peer:
    """A bare socket that may say anything."""

    def __init__(self, intake: Intake, identity: bytes, *, key: str = "key") -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.LINGER, 0)
        if key:
            present_key(self.socket, key)
        self.is_let_in = connect(self.socket, intake.endpoint)

    def say(self, *records: Record) -> None:
        for record in records:
            self.socket.send_multipart(encode(record))

    def hear(self) -> Record:
        assert self.socket.poll(10_000), "no answer"
        return decode(self.socket.recv_multipart())

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def peer(intake: Intake) -> Iterator[Peer]:
    one = Peer(intake, b"a0#s")
    yield one
    one.close()


def hello() -> Hello:
    return Hello(
        actor_id="a0", session="s", schema_version=SCHEMA_VERSION, credit=2, kernel_level=""
    )


def joined(peer: Peer) -> list[TaskLease]:
    peer.say(hello())
    assert isinstance(peer.hear(), Welcome)
    leases = [peer.hear(), peer.hear()]
    assert all(isinstance(lease, TaskLease) for lease in leases)
    return [lease for lease in leases if isinstance(lease, TaskLease)]


def answer(lease: TaskLease) -> Trajectory:
    return make_trajectory(
        lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index, task_id="t"
    )


def broken(lease: TaskLease) -> list[Buffer]:
    """A trajectory whose array has a size that no array has."""
    header, *arrays = encode(answer(lease))
    kind, body = msgpack.unpackb(header)
    body["step_rewards"][2] = [float("inf")]
    return [msgpack.packb([kind, body]), *arrays]


@pytest.mark.parametrize("key", ["", "guess"])
def test_whoever_has_not_the_key_is_not_let_in_and_takes_nobodys_place(
    intake: Intake, peer: Peer, key: str
) -> None:
    leases = joined(peer)
    stranger = Peer(intake, b"a0#s", key=key)
    peer.say(*map(answer, leases))
    batch = intake.take_batch(learner_version=0, timeout_s=10)
    stranger.close()

    assert not stranger.is_let_in
    assert len(batch) == 2, "the same name is still its owner's"


def test_actor_with_another_schema_is_refused_and_both_versions_are_named(peer: Peer) -> None:
    peer.say(replace(hello(), schema_version=99))
    refused = peer.hear()

    assert isinstance(refused, Refused)
    assert f"wire schema 99, the coordinator {SCHEMA_VERSION}" in refused.reason


def test_nobody_speaks_under_a_name_that_is_not_its_own(intake: Intake) -> None:
    for identity in (b"somebody", b"a0#another", b"\xff\xfe"):
        peer = Peer(intake, identity)
        peer.say(hello())
        refused = peer.hear()
        peer.say(Heartbeat(seen=0, leases=()))
        wanted = peer.hear()
        peer.close()

        assert isinstance(refused, Refused)
        assert SECRET not in refused.reason
        assert isinstance(wanted, HelloWanted)
    assert intake.counters().started == 0


def test_a_trajectory_that_cannot_be_read_is_the_end_of_its_lease_only(
    intake: Intake, peer: Peer
) -> None:
    first, second = joined(peer)

    peer.socket.send_multipart(broken(first))
    rejected, ack, again = peer.hear(), peer.hear(), peer.hear()
    assert isinstance(again, TaskLease)
    peer.say(answer(again), answer(second))

    batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert isinstance(rejected, Rejected)
    assert ack == Ack(trajectory_id=first.lease_id)
    assert len(batch) == 2
    assert intake.counters().dropped == {"malformed": 1}


@pytest.mark.parametrize(
    ("error", "heard"),
    [(OSError("disk full"), [Ack, Ack]), (KeyError("a bug"), [Ack, Rejected, Ack, Rejected])],
)
def test_a_store_that_fails_does_not_stop_training(
    intake: Intake,
    peer: Peer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    heard: list[type[Record]],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(TrajectoryStore, "append", fail)
    leases = joined(peer)

    peer.say(*map(answer, leases))

    assert [type(peer.hear()) for _ in heard] == heard
    assert len(intake.take_batch(learner_version=0, timeout_s=10)) == 2


HUGE: dict[str, Any] = {"number": 2**70}


@pytest.mark.parametrize("task", [Task(task_id="t", question="?", answers=("a",), labels=HUGE)])
def test_a_task_that_no_wire_carries_is_its_own_failure(intake: Intake, peer: Peer) -> None:
    peer.say(hello())
    assert isinstance(peer.hear(), Welcome)
    for _ in range(3):
        peer.say(Heartbeat(seen=0, leases=()))
        assert isinstance(peer.hear(), HeartbeatAck)

    with pytest.raises(LZeroError, match=r"unsendable \d+ \(last: task 't' cannot be sent: "):
        intake.take_batch(learner_version=0, timeout_s=0.1)


def test_a_stranger_cannot_end_the_lease_of_another(intake: Intake, peer: Peer) -> None:
    leases = joined(peer)
    stranger = Peer(intake, b"a0")
    stranger.socket.send_multipart(broken(leases[0]))
    assert isinstance(stranger.hear(), HelloWanted)
    stranger.say(answer(leases[0]))
    assert isinstance(stranger.hear(), HelloWanted)
    stranger.close()

    peer.say(*map(answer, leases))

    assert len(intake.take_batch(learner_version=0, timeout_s=10)) == 2
    assert intake.counters().dropped.total() == 0


def test_values_that_the_model_cannot_take_never_reach_the_learner(
    intake: Intake, peer: Peer
) -> None:
    first, second = joined(peer)
    bad = answer(first)

    peer.say(replace(bad, step_rewards=bad.step_rewards * float("nan")))
    again = next(record for record in iter(peer.hear, None) if isinstance(record, TaskLease))
    peer.say(answer(again), answer(second))

    batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert all(trajectory.total_reward == 1.0 for trajectory in batch)
    assert intake.counters().dropped == {"invalid:reward": 1}


def test_a_session_that_goes_on_after_the_drain_is_told_again(intake: Intake, peer: Peer) -> None:
    joined(peer)
    ending = threading.Thread(target=intake.drain, args=("done",), kwargs={"timeout_s": 20})
    ending.start()
    while not isinstance(peer.hear(), Drain):
        pass

    peer.say(Heartbeat(seen=2, leases=()))

    while not isinstance(peer.hear(), Drain):
        pass
    peer.say(Leave(reason="done"))
    ending.join(10)
    assert not ending.is_alive()


def test_a_flood_of_garbage_neither_stops_the_learner_nor_fills_the_log(
    intake: Intake, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    leases = joined(peer)
    stranger, heard, over = Peer(intake, b"flood"), threading.Event(), threading.Event()

    def flood() -> None:
        while not over.is_set():
            stranger.socket.send_multipart([b"\xc1" * 50])
            while stranger.socket.poll(0):
                stranger.socket.recv_multipart()
                heard.set()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        assert heard.wait(10)
        peer.say(*map(answer, leases))
        batch = intake.take_batch(learner_version=0, timeout_s=10)
    finally:
        over.set()
        flooding.join(timeout=10)
        stranger.close()

    assert len(batch) == 2
    assert sum("message refused" in line for line in caplog.messages) in (1, 2)
