"""Strangers, broken messages and floods on the coordinator's port: nothing is given, or ends."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import psutil
import pytest
import zmq

from common.codec import SCHEMA_VERSION, Buffer, Record, decode, encode
from common.doorkeeper import present_key
from common.messages import Task, TaskLease, Trajectory
from common.session import (
    Ack,
    Drain,
    Heartbeat,
    Hello,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
    Welcome,
)
from common.testing import make_trajectory
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore

SECRET = "the gold answer"


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    coordinator = Coordinator(
        TaskOrder([Task(task_id="t", question="?", answers=(SECRET,))], seed=0),
        groups_per_batch=1, group_size=2, max_staleness=0, total_batches=50,
        max_buffered_bytes=1 << 30,
    )  # fmt: skip
    store = TrajectoryStore(tmp_path / "trajectories", limit_bytes=1 << 20)
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
        self.socket.connect(intake.endpoint)

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


def hello(*, session: str = "s", credit: int = 2) -> Hello:
    return Hello(
        actor_id="a0", session=session, schema_version=SCHEMA_VERSION, credit=credit,
        kernel_level="",
    )  # fmt: skip


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


@pytest.mark.parametrize("key", ["", "guess", "\ud83d".encode("utf-8", "replace").decode()])
def test_whoever_has_not_the_key_gets_nothing_and_nothing_of_his_is_kept(
    intake: Intake, peer: Peer, key: str
) -> None:
    stranger = Peer(intake, b"a0#s", key=key)
    stranger.say(hello())
    for _ in range(20):  # one message that never ends
        stranger.socket.send(bytes(1 << 20), zmq.SNDMORE)

    before = psutil.Process().memory_info().rss
    leases = joined(peer)
    peer.say(*map(answer, leases))
    batch = intake.take_batch(learner_version=0, timeout_s=10)

    assert len(batch) == 2, "the same name is still its owner's"
    assert stranger.socket.poll(0) == 0
    assert psutil.Process().memory_info().rss - before < 10 << 20
    stranger.close()


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
    stranger, over = Peer(intake, b"flood"), threading.Event()

    def flood() -> None:
        while not over.is_set():
            stranger.socket.send_multipart([b"\xc1" * 50])
            while stranger.socket.poll(0):
                stranger.socket.recv_multipart()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        peer.say(*map(answer, leases))
        batch = intake.take_batch(learner_version=0, timeout_s=10)
        waited_for = intake.counters()
    finally:
        over.set()
        flooding.join(timeout=10)
        stranger.close()

    assert len(batch) == 2
    assert waited_for.trained == 2
    assert sum("message refused" in line for line in caplog.messages) <= 3
