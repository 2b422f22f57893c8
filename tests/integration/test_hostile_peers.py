"""Members of a run who lie, break off or flood: what the others do goes on, and nothing is left."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from actors.inference.staging import StagingReceiver
from common.child_process import SOURCE_ROOT
from common.errors import LZeroError
from common.places import Address
from common.telemetry.process_totals import add_actor_totals, read_actor_totals
from common.wire.codec import SCHEMA_VERSION, Buffer, Record, encode
from common.wire.parts import PART_BYTES
from common.wire.records import Task, TaskLease
from common.wire.session import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatAck,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
    Welcome,
)
from common.wire.weights import ReportKind, StagingReport, pack_report, worker_identity
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from learner.weights.channel import StagingChannel, take_snapshot
from tests.coordination import SECRET, TASK, Peer, a_peer, an_intake, answer, hello
from tests.leaks import nothing_is_left
from tests.makers import make_totals
from tests.waiting import wait_for
from tests.wires import ACTOR_LIMITS, WORKER_LIMITS, Place, a_line, a_place, new_key_pair

BOTH = pytest.mark.parametrize("place", ["unix", "tcp"], indirect=True)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_is_left():
        yield


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with a_place(("a0", "a1"), tcp=getattr(request, "param", "unix") == "tcp") as place:
        yield place


@pytest.fixture
def task() -> Task:
    return TASK


@pytest.fixture
def intake(place: Place, task: Task, tmp_path: Path) -> Iterator[Intake]:
    with an_intake(place, tmp_path, task) as running:
        yield running


@pytest.fixture
def peer(place: Place, intake: Intake) -> Iterator[Peer]:
    with a_peer(place) as one:
        yield one


def finishes_unharmed(intake: Intake, peer: Peer, leases: list[TaskLease]) -> None:
    peer.say(*map(answer, leases))
    assert len(intake.take_batch(learner_version=0, timeout_s=10)) == 2
    assert intake.counters().dropped.total() == 0


def broken(lease: TaskLease) -> list[Buffer]:
    """A trajectory whose array has a size that no array has."""
    header, *arrays = encode(answer(lease))
    kind, body = msgpack.unpackb(header)
    body["step_rewards"][2] = [float("inf")]
    return [msgpack.packb([kind, body]), *arrays]


# ---- who they say they are -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "identity", [b"a0", b"a0#another", b"somebody", b"\xff\xfe", b"#", b"a0#s#"]
)
def test_nobody_speaks_under_the_name_of_another_member(
    intake: Intake, place: Place, peer: Peer, identity: bytes
) -> None:
    leases = peer.joined()
    with a_peer(place, "a1", identity) as thief:
        thief.say(hello("a0", "another"), hello("a1"), Heartbeat(seen=0, leases=()))
        thief.say(*map(answer, leases), Leave(reason="from a0"))
        thief.line.send(broken(leases[0]))
        assert thief.hears_nothing()
        finishes_unharmed(intake, peer, leases)
    assert intake.counters().started == 2


def test_a_member_says_hello_under_its_own_name_and_session_alone(
    intake: Intake, place: Place
) -> None:
    with a_peer(place, "a1", b"a1#s") as liar:
        for said in (hello("a0"), hello("a1", "another")):
            liar.say(said)
            refused = liar.hear()
            assert isinstance(refused, Refused)
            assert SECRET not in refused.reason
        liar.say(Heartbeat(seen=0, leases=()))
        assert isinstance(liar.hear(), HelloWanted)
    assert intake.counters().started == 0


def test_actor_with_another_schema_is_refused_and_both_versions_are_named(peer: Peer) -> None:
    peer.say(replace(hello(), schema_version=99))
    refused = peer.hear()

    assert isinstance(refused, Refused)
    assert f"wire schema 99, the coordinator {SCHEMA_VERSION}" in refused.reason


# ---- leases of others ----------------------------------------------------------------------------


@BOTH
def test_only_the_session_that_holds_a_lease_settles_it(
    intake: Intake, place: Place, peer: Peer
) -> None:
    leases = peer.joined()
    with a_peer(place, "a1", b"a1#s") as forger:
        forger.say(hello("a1"))
        assert isinstance(forger.hear(), Welcome)
        forger.say(*(replace(answer(lease), step_rewards=answer(lease).step_rewards * 100)
                     for lease in leases))  # fmt: skip
        assert [forger.hear() for _ in leases] == [Ack(trajectory_id=x.lease_id) for x in leases]
        forger.line.send(broken(leases[0]))
        assert isinstance(forger.hear(), Rejected)
        forger.say(Heartbeat(seen=9, leases=tuple(lease.lease_id for lease in leases)))
        assert isinstance(forger.hear(), HeartbeatAck)

        peer.say(*map(answer, leases))
        batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert [trajectory.total_reward for trajectory in batch] == [1.0, 1.0]


def test_what_is_said_twice_counts_once(intake: Intake, peer: Peer) -> None:
    leases = peer.joined()
    finishes_unharmed(intake, peer, leases)
    for _ in leases:
        assert isinstance(peer.hear(), Ack)
    peer.say(hello(), *map(answer, leases), hello())

    with pytest.raises(LZeroError, match="waited 0 s for a batch for step 2"):
        intake.take_batch(learner_version=1, timeout_s=0.2)
    intake.acknowledge(1)
    fresh = two_leases(peer)
    assert {lease.lease_id for lease in fresh}.isdisjoint(lease.lease_id for lease in leases)
    counters = intake.counters()
    assert (counters.finished, counters.trained, counters.dropped.total()) == (2, 2, 0)


def two_leases(peer: Peer) -> list[TaskLease]:
    leases: list[TaskLease] = []
    while len(leases) < 2:
        record = peer.hear()
        leases += [record] if isinstance(record, TaskLease) else []
    return leases


# ---- what they say -------------------------------------------------------------------------------


def test_a_trajectory_that_cannot_be_read_is_the_end_of_its_lease_only(
    intake: Intake, peer: Peer
) -> None:
    first, second = peer.joined()

    peer.line.send(broken(first))
    rejected, ack, again = peer.hear(), peer.hear(), peer.hear()
    assert isinstance(again, TaskLease)
    peer.say(answer(again), answer(second))

    batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert isinstance(rejected, Rejected)
    assert ack == Ack(trajectory_id=first.lease_id)
    assert len(batch) == 2
    assert intake.counters().dropped == {"malformed": 1}


@BOTH
def test_a_long_trajectory_arrives_whole(intake: Intake, peer: Peer) -> None:
    leases = peer.joined()
    long = [replace(answer(lease), question="?" * (5 * PART_BYTES)) for lease in leases]
    peer.say(*long)
    batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert [t.question for t in batch] == [t.question for t in long]


@BOTH
def test_a_member_that_sends_a_giant_part_is_cut_off_and_comes_back(
    intake: Intake, place: Place, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    leases = peer.joined()
    with a_peer(place, "a1", b"a1#s") as giant:
        giant.line._socket.send(bytes(PART_BYTES + 100))
        giant.say(hello("a1"))
        finishes_unharmed(intake, peer, leases)
    with a_peer(place, "a1", b"a1#t") as again:
        again.say(hello("a1", "t"))
        assert isinstance(again.hear(), Welcome)
    assert "message refused" not in caplog.text, "it never arrived"


_A_DOOR_THAT_NOBODY_READS = """
import sys
from tests.wires import ACTOR_LIMITS, Address, Wire, new_key_pair
with Wire(new_key_pair()) as wire:
    door = wire.listen("test", Address(bind=sys.argv[1]), {sys.argv[2]: "a0"}, ACTOR_LIMITS)
    print(door.address.key, flush=True)
    door.wait()
    print("it comes", flush=True)
    sys.stdin.readline()
    received = sum(door.receive() is not None for _ in range(20_000))
    door.close()
print(received, flush=True)
"""


@pytest.mark.nightly
def test_a_member_that_goes_while_much_of_it_waits_ends_no_door(tmp_path: Path) -> None:
    """libzmq aborts the process where a heartbeat is due to such a peer."""
    keys, where = new_key_pair(), str(tmp_path / "door")
    command = [sys.executable, "-c", _A_DOOR_THAT_NOBODY_READS, where, keys.public]
    with subprocess.Popen(
        command, cwd=SOURCE_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = Address(bind=where, key=process.stdout.readline().strip())
        with a_line(address, keys, identity=b"a0#s") as line:
            for _ in range(20_000):
                line.send([bytes(1000)])
            assert process.stdout.readline() == "it comes\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
        left, _ = process.communicate("receive\n", timeout=10)
    assert int(left) >= ACTOR_LIMITS.queued_in


def test_values_that_the_model_cannot_take_never_reach_the_learner(
    intake: Intake, peer: Peer
) -> None:
    first, second = peer.joined()
    bad = answer(first)

    peer.say(replace(bad, step_rewards=bad.step_rewards * float("nan")))
    again = next(record for record in iter(peer.hear, None) if isinstance(record, TaskLease))
    peer.say(answer(again), answer(second))

    batch = intake.take_batch(learner_version=0, timeout_s=10)
    assert all(trajectory.total_reward == 1.0 for trajectory in batch)
    assert intake.counters().dropped == {"invalid:reward": 1}


@BOTH
def test_a_flood_of_garbage_neither_stops_the_learner_nor_fills_the_log(
    intake: Intake, place: Place, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    leases = peer.joined()
    heard, over = threading.Event(), threading.Event()

    def flood() -> None:
        with a_peer(place, "a1", b"a1#s") as flooding, a_peer(place, "a1", b"a0#x") as lying:
            while not over.is_set():
                flooding.line.send([b"\xc1" * 50])
                lying.line.send([b"\xc1" * 50])
                while flooding.line.receive(timeout_ms=0) is not None:
                    heard.set()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert heard.wait(10)
        finishes_unharmed(intake, peer, leases)
    finally:
        over.set()
        thread.join(timeout=10)

    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) <= 4, warnings


# ---- what fails on our side ----------------------------------------------------------------------


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
    leases = peer.joined()

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


def test_a_session_that_goes_on_after_the_drain_is_told_again(intake: Intake, peer: Peer) -> None:
    peer.joined()
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


# ---- totals --------------------------------------------------------------------------------------


def left_with(**changes: object) -> list[Buffer]:
    """A goodbye whose totals are damaged."""
    header, *_ = encode(Leave(reason="done", totals=make_totals()))
    kind, body = msgpack.unpackb(header)
    body["totals"] |= changes
    return [msgpack.packb([kind, body])]


@pytest.mark.parametrize(
    "change",
    [
        {"requests": -1},
        {"requests": 2**63},
        {"requests": True},
        {"resent": 0.5},
        {"launcher": "x" * 65},
        {"kernel_level": "\x1b[2J"},
        {"actor_id": "../../learner"},
    ],
)
def test_totals_that_no_actor_counts_are_refused_and_written_nowhere(
    intake: Intake, peer: Peer, tmp_path: Path, change: dict[str, object]
) -> None:
    leases = peer.joined()
    peer.line.send(left_with(**change))
    assert isinstance(peer.hear(), Rejected)

    finishes_unharmed(intake, peer, leases)

    assert not (tmp_path / "actors").exists()
    peer.say(Leave(reason="done", totals=make_totals()))
    wait_for(lambda: read_actor_totals(tmp_path / "actors") == {"a0": make_totals()}, timeout_s=10)


def test_the_totals_of_all_lives_of_an_actor_are_added_up_known_or_not(
    intake: Intake, place: Place, peer: Peer, tmp_path: Path
) -> None:
    add_actor_totals("a0", make_totals(requests=1), folder=tmp_path / "actors")  # before a restart
    peer.joined()
    peer.say(Leave(reason="done", totals=make_totals(requests=10)))
    with a_peer(place, "a0", b"a0#later") as later:
        later.say(Leave(reason="done", totals=make_totals(requests=100)))
        all_three = {"a0": replace(make_totals(requests=111), kernels_started=3)}
        wait_for(lambda: read_actor_totals(tmp_path / "actors") == all_three, timeout_s=10)


def test_a_sum_that_is_too_large_is_not_kept_and_the_run_goes_on(
    intake: Intake, peer: Peer, tmp_path: Path
) -> None:
    most = replace(make_totals(), tokens_generated=2**63 - 1)
    add_actor_totals("a0", most, folder=tmp_path / "actors")
    peer.say(Leave(reason="done", totals=most))
    leases = peer.joined()

    finishes_unharmed(intake, peer, leases)

    assert read_actor_totals(tmp_path / "actors") == {"a0": most}


# ---- weights -------------------------------------------------------------------------------------


@pytest.fixture
def weights(request: pytest.FixtureRequest) -> Iterator[tuple[Place, StagingChannel]]:
    with a_place(("s0", "s1"), limits=WORKER_LIMITS, tcp=request.param == "tcp") as place:
        channel = StagingChannel(place.door)
        for server in ("s0", "s1"):
            channel.expect(server, 1)
        channel.start()
        yield place, channel
        channel.stop()


@pytest.mark.parametrize("weights", ["unix", "tcp"], indirect=True)
def test_a_server_neither_speaks_for_another_nor_takes_its_place(
    weights: tuple[Place, StagingChannel], caplog: pytest.LogCaptureFixture
) -> None:
    place, channel = weights
    receiver = StagingReceiver(place.door.address, server="s0", rank=0, keys=place.keys["s0"])
    receiver.start()
    offer(channel, 1)
    channel.wait_staged("s0", workers=1, version=1, timeout_s=10)
    with place.line("s1", identity=worker_identity("s0", 0)) as thief:
        for kind in ReportKind:
            report = StagingReport(server="s0", rank=0, kind=kind, version=7, reason="forged")
            thief.send([pack_report(report)])
        thief.send([b"\xff" * 1000])
        thief.send([b"", b"\xff\xff\xff\xff"])
        wait_for(lambda: "ignored a report" in caplog.text)
        offer(channel, 2)
        channel.wait_staged("s0", workers=1, version=2, timeout_s=10)
        assert thief.receive(timeout_ms=200) is None, "no weights for it"
    assert receiver.take(2).own.manifest.version == 2
    receiver.stop()


def offer(channel: StagingChannel, version: int) -> None:
    channel.offer(take_snapshot(version, {"norm": torch.full((4,), float(version))}))
