"""The relay of the fault suite does to connections what it says; ZeroMQ and CURVE bear it."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.wire.sockets import Line
from tests.faults.relay import Relay
from tests.waiting import wait_for
from tests.wires import Place, a_line, a_place


@contextmanager
def relayed() -> Iterator[tuple[Place, Relay, Line]]:
    """A member's line to a door, by way of a relay."""
    with tempfile.TemporaryDirectory() as folder, a_place(["a0"]) as place:
        relay = Relay(Path(folder) / "relay", lambda: Path(place.door.address.bind))
        by_relay = dataclasses.replace(place.door.address, bind=str(relay.path))
        with relay.running(), a_line(by_relay, place.keys["a0"], identity=b"a0#s") as line:
            yield place, relay, line
            line.close()
        place.door.close()


def heard(place: Place) -> list[bytes]:
    """What is at the door, each message's only frame."""
    found = []
    while (parcel := place.door.receive()) is not None:
        found += [bytes(frame) for frame in parcel.frames]
    return found


def hears(place: Place, *words: bytes) -> None:
    """These come to the door, and nothing else."""
    found: list[bytes] = []

    def has_come() -> bool:
        found.extend(heard(place))
        return len(found) >= len(words)

    wait_for(has_come, timeout_s=30)
    assert found == list(words)


def test_a_connection_of_old_bytes_is_refused_and_doubles_nothing() -> None:
    with relayed() as (place, relay, line):
        line.send([b"one"])
        hears(place, b"one")

        assert relay.replay()

        assert heard(place) == []
        line.send([b"two"])
        hears(place, b"two")
        assert relay.opened == 1


def test_a_line_that_was_cut_is_made_again() -> None:
    with relayed() as (place, relay, line):
        line.send([b"one"])
        hears(place, b"one")

        assert relay.cut() == 1

        wait_for(lambda: relay.opened == 2, timeout_s=30)
        line.send([b"two"])
        hears(place, b"two")


def test_what_is_held_up_comes_once_it_is_let_go() -> None:
    with relayed() as (place, relay, line):
        line.send([b"one"])
        hears(place, b"one")
        relay.hold_up()
        line.send([b"two"])
        assert not place.door.wait(200)

        relay.let_go()

        hears(place, b"two")
