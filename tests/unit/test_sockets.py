"""A door lets the members of a run in, each under its own name, and nobody else.

What strangers and broken peers can do to the coordinator is tried in
``tests/integration/test_hostile_peers.py``.
"""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from common.errors import MachineError
from common.places import Address
from common.wire.parcels import Parcel
from common.wire.sockets import (
    Door,
    Line,
    PeerLimits,
    UndeliverableError,
    Wire,
    new_key_pair,
)
from tests.waiting import wait_for
from tests.wires import TCP, Place, a_line, a_place

LIMITS = PeerLimits(part_bytes=1000, queued_in=4, queued_out=4)
MUST_ARRIVE = replace(LIMITS, must_arrive=True)


@pytest.fixture(params=["unix", "tcp"])
def tcp(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tcp")


@pytest.fixture
def place(tcp: bool) -> Iterator[Place]:
    with a_place(["a0", "a1"], limits=LIMITS, tcp=tcp) as place:
        yield place
        place.door.close()


def next_parcel(door: Door) -> Parcel:
    found: list[Parcel] = []

    def come() -> bool:
        door.wait(100)
        if (parcel := door.receive()) is not None:
            found.append(parcel)
        return bool(found)

    wait_for(come)
    return found[0]


def nothing_comes(door: Door) -> bool:
    door.wait(50)
    return door.receive() is None


def said(frames: list[memoryview] | None) -> list[bytes] | None:
    return None if frames is None else [bytes(frame) for frame in frames]


def test_a_message_goes_there_and_an_answer_back(place: Place) -> None:
    with place.line("a0", identity=b"a0#s") as line:
        line.send([b"one", b"", b"three"])
        parcel = next_parcel(place.door)
        place.door.send(parcel.identity, [b"yes", b"indeed"])

        assert (parcel.identity, parcel.member) == (b"a0#s", "a0")
        assert said(parcel.frames) == [b"one", b"", b"three"]
        assert said(line.receive(timeout_ms=10_000)) == [b"yes", b"indeed"]


def test_the_name_is_that_of_the_key_whatever_a_member_calls_itself(place: Place) -> None:
    with place.line("a1", identity=b"a0#s") as liar, place.line("a0", identity=b"x") as other:
        liar.send([b"I am a0"])
        assert next_parcel(place.door).member == "a1"
        other.send([b"hello"])
        assert next_parcel(place.door).member == "a0"


def test_a_line_for_asyncio_does_the_same(place: Place) -> None:
    async def talk(wire: Wire) -> list[bytes] | None:
        line = wire.connect_async(place.door.address, identity=b"a0#s")
        assert not await line.is_ready(timeout_ms=0)
        await line.send([b"hello"])
        parcel = await asyncio.to_thread(next_parcel, place.door)
        place.door.send(parcel.identity, [b"welcome"])
        assert await line.is_ready(timeout_ms=10_000)
        frames = await line.receive()
        await line.send([b"bye"])
        line.close(linger_ms=1000)
        return said(frames)

    with Wire(place.keys["a0"]) as wire:
        assert asyncio.run(talk(wire)) == [b"welcome"]
        assert said(next_parcel(place.door).frames) == [b"bye"], "what is left unsent goes out"


def test_a_stranger_does_not_get_in_and_is_logged_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with a_line(place.door.address, new_key_pair(), identity=b"a0#s") as line:
            line.send([b"let me in"])
            wait_for(lambda: "refused a stranger" in caplog.text)
            assert nothing_comes(place.door)
            assert line.receive(timeout_ms=0) is None
    assert caplog.text.count("refused a stranger") == 1


def test_who_holds_another_key_for_the_doors_own_gets_no_word_through(place: Place) -> None:
    """Of another start of the run, or somebody who wants to be taken for the coordinator."""
    address = replace(place.door.address, key=new_key_pair().public)
    with a_line(address, place.keys["a0"], identity=b"a0#s") as line:
        line.send([b"hello"])

        assert nothing_comes(place.door)
        assert line.receive(timeout_ms=0) is None


@pytest.mark.parametrize("key", ["", "k" * 39, "k" * 41, "~" * 40, "%" * 40, "é" * 40, "#" * 40])
def test_what_is_no_key_lets_nobody_in(place: Place, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        place.door.admit(key, "a9")


def test_at_who_speaks_without_encryption_the_door_hangs_up(place: Place) -> None:
    with plain(place.door.address) as peer:
        peer.settimeout(10)
        peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48))

        wait_for(lambda: peer.recv(1 << 16) == b"")
        assert nothing_comes(place.door)


def plain(address: Address) -> socket.socket:
    """A bare connection to a door."""
    if not address.is_unix:
        return socket.create_connection((address.host, address.port))
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(address.bind)
    return peer


def test_a_member_of_one_door_is_a_stranger_at_another_of_the_same_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = new_key_pair()
    with a_place(["a0"]) as place:
        other = place.wire.listen(
            "other", Address(bind=str(tmp_path / "other")), {keys.public: "s0"}, LIMITS
        )
        with (
            place.line("a0", identity=b"1") as strange,
            a_line(place.door.address, keys, identity=b"2") as strange_too,
            a_line(other.address, keys, identity=b"3") as member,
        ):
            strange_too.send([b"?"])
            member.send([b"!"])
            assert next_parcel(other).member == "s0"
            assert nothing_comes(place.door)
            strange.send([b"!"])
            assert next_parcel(place.door).member == "a0"
        with a_line(other.address, place.keys["a0"], identity=b"4") as strange:
            strange.send([b"?"])
            assert nothing_comes(other)
        place.door.close()
        other.close()
    assert "refused a stranger" in caplog.text


def test_a_message_that_is_too_large_ends_the_connection_and_no_other(place: Place) -> None:
    with place.line("a0", identity=b"0") as large, place.line("a1", identity=b"1") as small:
        large.send([bytes(LIMITS.part_bytes + 1)])
        small.send([bytes(LIMITS.part_bytes)])

        assert next_parcel(place.door).member == "a1"
        assert nothing_comes(place.door)


def test_a_peer_that_sends_more_than_may_wait_loses_nothing_and_keeps_its_order(tcp: bool) -> None:
    """It goes on where it was once somebody receives."""
    count = 20_000
    with (
        a_place(["a0"], limits=replace(LIMITS, queued_in=4), tcp=tcp) as place,
        place.line("a0", identity=b"0") as line,
    ):
        for number in range(count):
            line.send([number.to_bytes(4, "big"), bytes(200)])
        first = next_parcel(place.door)
        got = [first, *(next_parcel(place.door) for _ in range(count - 1))]
        place.door.close()

    assert [int.from_bytes(bytes(parcel.frames[0]), "big") for parcel in got] == list(range(count))


def test_no_heartbeat_is_due_to_a_peer_that_may_be_gone(place: Place) -> None:
    """What it would do: ``test_a_member_that_goes_while_much_of_it_waits_ends_no_door``."""
    with place.line("a0", identity=b"0") as line:
        for end in (place.door, line):
            assert end._socket.getsockopt(zmq.HEARTBEAT_IVL) == 0
            assert end._socket.getsockopt(zmq.TCP_KEEPALIVE) == 1, "the system asks instead"


def test_what_cannot_arrive_is_dropped_or_an_error_as_the_door_wants(tcp: bool) -> None:
    with a_place(limits=LIMITS, tcp=tcp) as place:
        place.door.send(b"nobody", [b"lost"])
        place.door.close()
    with a_place(limits=MUST_ARRIVE, tcp=tcp) as place:
        with pytest.raises(UndeliverableError):
            place.door.send(b"nobody", [b"lost"])
        place.door.close()


def test_a_peer_that_does_not_read_fills_its_own_queue_only(tcp: bool) -> None:
    with (
        a_place(["a0", "a1"], limits=MUST_ARRIVE, tcp=tcp) as place,
        place.line("a0", identity=b"0") as deaf,
        place.line("a1", identity=b"1") as other,
    ):
        for line in (deaf, other):
            line.send([b"hello"])
            next_parcel(place.door)
        with pytest.raises(UndeliverableError):
            send_often(place.door, b"0")

        place.door.send(b"1", [b"for you"])

        assert said(other.receive(timeout_ms=10_000)) == [b"for you"]
        place.door.close()


def send_often(door: Door, identity: bytes) -> None:
    for _ in range(10_000):
        door.send(identity, [bytes(100_000)])


def test_who_waits_is_woken_by_another_thread_and_by_time(place: Place) -> None:
    waker = threading.Timer(0.05, place.door.wake)
    waker.start()
    place.door.wait()
    waker.join()
    place.door.wait(1)

    place.door.wake()
    place.door.wake()
    place.door.wait()
    assert nothing_comes(place.door), "two wakes are one"


def test_a_session_that_comes_back_takes_its_own_place(place: Place) -> None:
    with place.line("a0", identity=b"a0#s") as before:
        before.send([b"hello"])
        next_parcel(place.door)
        with place.line("a0", identity=b"a0#s") as after:
            after.send([b"again"])
            next_parcel(place.door)
            place.door.send(b"a0#s", [b"welcome"])

            assert said(after.receive(timeout_ms=10_000)) == [b"welcome"]
            assert before.receive(timeout_ms=0) is None


def test_a_line_waits_for_a_door_that_opens_later(tmp_path: Path) -> None:
    """Also when it closes and another opens in its place, as after a restart."""
    address, own, member = Address(bind=str(tmp_path / "door")), new_key_pair(), new_key_pair()

    def heard(line: Line) -> str:
        with Wire(own) as wire:
            door = wire.listen("test", address, {member.public: "a0"}, LIMITS)
            line.send([b"hello"])
            parcel = next_parcel(door)
            door.close()
            return parcel.member

    with Wire(member) as wire:
        line = wire.connect(replace(address, key=own.public), identity=b"a0#s")
        assert [heard(line), heard(line)] == ["a0", "a0"]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="the machine has no IPv6")
@pytest.mark.parametrize("host", ["[::1]", "localhost", "0.0.0.0"])
def test_a_door_listens_wherever_an_address_says(host: str) -> None:
    own, member = new_key_pair(), new_key_pair()
    with Wire(own) as wire:
        door = wire.listen("test", Address(bind=host, host=host), {member.public: "a0"}, LIMITS)
        with a_line(door.address, member, identity=b"a0#s") as line:
            line.send([b"hello"])
            assert next_parcel(door).member == "a0"
        door.close()


def test_a_door_tells_where_it_listens_and_keeps_it() -> None:
    with a_place(tcp=True) as place:
        address = place.door.address
        assert address.port > 0
        with Wire(new_key_pair()) as wire, pytest.raises(MachineError) as caught:
            wire.listen("coordinator", address, {}, LIMITS)
        place.door.close()

    assert f"coordinator cannot listen at {address}: Address already in use" in str(caught.value)
    assert "transport.listen" in str(caught.value)
    with Wire(new_key_pair()) as wire:
        wire.listen("again", address, {}, LIMITS).close()


@pytest.mark.parametrize(
    "address",
    [
        Address(bind="/no/such/folder/door"),
        Address(bind=f"/tmp/{'x' * 200}"),
        replace(TCP, bind="192.0.2.1", host="192.0.2.1"),
        replace(TCP, bind="no interface", host="no interface"),
    ],
    ids=["no folder", "too long", "not ours", "nonsense"],
)
def test_an_address_that_cannot_be_bound_is_named(address: Address) -> None:
    with Wire(new_key_pair()) as wire, pytest.raises(MachineError, match="cannot listen at"):
        wire.listen("coordinator", address, {}, LIMITS)


def test_a_wire_that_is_closed_leaves_no_descriptor_and_no_thread() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with a_place() as place:
        place.door.close()
    before = descriptors()
    for _ in range(5):
        with a_place() as place, place.line("a0", identity=b"0") as line:
            line.send([b"hello"])
            next_parcel(place.door)
            place.door.close()

    assert descriptors() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "doorkeeper"]


def test_a_socket_file_is_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "door"
    with Wire(new_key_pair()) as wire:
        door = wire.listen("test", Address(bind=str(path)), {}, LIMITS)
        assert stat.S_ISSOCK(path.stat().st_mode)
        door.close()
