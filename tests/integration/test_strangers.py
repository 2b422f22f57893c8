"""Who has no key gets nothing, costs little and leaves nothing, at TCP ports and Unix sockets."""

import asyncio
import os
import resource
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from actors.inference.staging import StagingReceiver
from actors.link import CoordinatorLink
from common.places import Address
from common.wire.session import Heartbeat, HeartbeatAck
from common.wire.sockets import Wire, new_key_pair
from learner.coordination.intake import Intake
from tests.coordination import SECRET, Peer, a_peer, an_intake, answer
from tests.handshake import GREETING, a_crowd, dial, is_let_in
from tests.leaks import nothing_is_left, open_descriptors
from tests.waiting import wait_for
from tests.wires import ACTOR_LIMITS, TCP, WORKER_LIMITS, Place, a_place, new_keys

REPOSITORY = Path(__file__).resolve().parents[2]
HANDSHAKE_S = 5


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_is_left():
        yield


@pytest.fixture(params=["unix", "tcp"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with a_place(("a0", "a1"), tcp=request.param == "tcp") as place:
        yield place


@pytest.fixture
def intake(place: Place, tmp_path: Path) -> Iterator[Intake]:
    with an_intake(place, tmp_path) as running:
        yield running


@pytest.fixture
def peer(place: Place, intake: Intake) -> Iterator[Peer]:
    with a_peer(place) as one:
        yield one


def resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def finishes_unharmed(intake: Intake, peer: Peer, leases: list) -> None:  # type: ignore[type-arg]
    """The run of the honest member ends as if nobody else had been there."""
    peer.say(*map(answer, leases))
    assert len(intake.take_batch(learner_version=0, timeout_s=10)) == 2
    counters = intake.counters()
    assert counters.dropped.total() == 0
    assert counters.trained == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["tcp", pytest.param("unix", marks=pytest.mark.nightly)], indirect=True
)
def test_a_thousand_strangers_are_gone_after_the_time_of_a_handshake(
    place: Place, intake: Intake, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    leases = peer.joined()
    before, held = open_descriptors(), resident_mib()
    with a_crowd(place.door.address, 1000):
        assert open_descriptors() - before > 100, "they are there"
        peer.say(Heartbeat(seen=2, leases=tuple(lease.lease_id for lease in leases)))
        assert isinstance(peer.hear(), HeartbeatAck), "others are served meanwhile"
        assert resident_mib() - held < 300
        # Their own ends stay open: it is the door that lets them go (and spares one descriptor
        # or another for the crowd's process).
        wait_for(lambda: open_descriptors() - before < 10, timeout_s=4 * HANDSHAKE_S)

    finishes_unharmed(intake, peer, leases)
    assert sum("refused a stranger" in line for line in caplog.messages) <= 1


@pytest.mark.parametrize("place", ["tcp"], indirect=True)
def test_a_stranger_cannot_make_a_door_keep_much(place: Place, intake: Intake, peer: Peer) -> None:
    """Frames of the handshake are bounded as those of a message are."""
    leases = peer.joined()
    held = resident_mib()
    crowd = [dial(place.door.address) for _ in range(8)]
    announced = GREETING + b"\x06" + (60 << 20).to_bytes(8, "big")
    for stranger in crowd:
        with closing(stranger), pytest.raises(OSError, match=r"reset|Broken pipe"):
            stranger.sendall(announced + bytes(60 << 20))
    assert resident_mib() - held < 60

    finishes_unharmed(intake, peer, leases)


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE with another key"])
def test_peers_of_another_mechanism_or_key_are_not_let_in(
    place: Place, intake: Intake, peer: Peer, mechanism: str
) -> None:
    leases = peer.joined()
    with zmq.Context() as context, context.socket(zmq.DEALER) as old:
        old.setsockopt(zmq.LINGER, 0)
        old.setsockopt(zmq.IDENTITY, b"a0#s")
        if mechanism == "PLAIN":
            old.plain_username, old.plain_password = b"a0", b"key"
        elif mechanism != "NULL":
            own = new_key_pair()
            old.curve_publickey, old.curve_secretkey = own.public.encode(), own.secret.encode()
            old.curve_serverkey = place.door.address.key.encode()
        assert not is_let_in(old, place.door.address)

    finishes_unharmed(intake, peer, leases)


def test_what_was_said_on_one_connection_says_nothing_on_another(
    place: Place, intake: Intake, tmp_path: Path
) -> None:
    """Somebody between the two may keep what passes, and say it again."""
    with a_recorder(place.door.address) as recorder, Wire(place.keys["a0"]) as wire:
        peer = Peer(wire.connect(recorder.address, identity=b"a0#s"))
        leases = peer.joined()
        finishes_unharmed(intake, peer, leases)
        said = bytes(recorder.said)
    started = intake.counters().started

    with closing(dial(place.door.address)) as again:
        again.sendall(said)
        again.settimeout(10)
        answered = b"".join(iter(lambda: again.recv(65536), b""))

    assert len(said) > 1000
    assert SECRET.encode() not in said + answered
    assert intake.counters().started == started


class Recorder(threading.Thread):
    """Passes on what a client says, and keeps it."""

    def __init__(self, door: Address) -> None:
        super().__init__(daemon=True)
        self._door = door
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.said = bytearray()
        port = self._listener.getsockname()[1]
        self.address = Address(bind="127.0.0.1", host="127.0.0.1", port=port, key=door.key)

    def __enter__(self) -> "Recorder":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.join(10)

    def run(self) -> None:
        client, _ = self._listener.accept()
        with client, dial(self._door) as door:
            back = threading.Thread(target=pour, args=(door, client))
            back.start()
            pour(client, door, self.said)
            back.join(10)


a_recorder = Recorder


def pour(source: socket.socket, target: socket.socket, kept: bytearray | None = None) -> None:
    try:
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def test_a_member_of_one_door_is_a_stranger_at_another(caplog: pytest.LogCaptureFixture) -> None:
    keys = new_keys(("a0", "s0"))
    with Wire(new_key_pair()) as wire:
        for_actors = wire.listen("coordinator", TCP, {keys["a0"].public: "a0"}, ACTOR_LIMITS)
        for_workers = wire.listen("weights", TCP, {keys["s0"].public: "s0"}, WORKER_LIMITS)
        with Wire(keys["a0"]) as actor, Wire(keys["s0"]) as worker:
            lines = [
                actor.connect(for_workers.address, identity=b"s0#0"),
                worker.connect(for_actors.address, identity=b"a0#s"),
            ]
            for line in lines:
                line.send([b"what is there?"])
            wait_for(lambda: "refused a stranger" in caplog.text)
            lines += [
                actor.connect(for_actors.address, identity=b"a0#s"),
                worker.connect(for_workers.address, identity=b"s0#0"),
            ]
            for line in lines[2:]:
                line.send([b"hello"])
            for door, member in ((for_actors, "a0"), (for_workers, "s0")):
                door.wait(10_000)
                parcel = door.receive()
                assert parcel is not None
                assert (parcel.member, bytes(parcel.frames[0])) == (member, b"hello")
                assert door.receive() is None
        for_actors.close()
        for_workers.close()


@pytest.mark.parametrize("tcp", [True, False])
def test_a_second_coordinator_at_the_same_address_hears_nothing(tmp_path: Path, tcp: bool) -> None:
    """It may take the port or the path of one that ended; it has not its key."""
    actor, true, false = new_key_pair(), new_key_pair(), new_key_pair()
    bind = TCP if tcp else Address(bind=str(tmp_path / "coordinator"))
    known = {actor.public: "a0"}
    with Wire(true) as first:
        door = first.listen("coordinator", bind, known, ACTOR_LIMITS)
        address = door.address
        door.close()
    with Wire(false) as second, Wire(actor) as own:
        door = second.listen("coordinator", address, known, ACTOR_LIMITS)
        workers = StagingReceiver(address, server="a0", rank=0, keys=actor)
        workers.start()

        async def talk() -> None:
            link = CoordinatorLink(
                own, address, actor_id="a0", credit=1, kernel_level="",
                heartbeat_s=0.1, resend_s=0.1, patience_s=1.0,
            )  # fmt: skip
            try:
                await link.run(lambda lease_id: None)
            finally:
                link.close()

        with pytest.raises(TimeoutError, match=r"has been silent for .*transport.silence_s"):
            asyncio.run(talk())
        workers.stop()
        assert door.receive() is None
        door.close()


def test_what_an_actor_says_to_whoever_has_the_port_can_be_read_by_nobody() -> None:
    keys = new_key_pair()
    with socket.create_server(("127.0.0.1", 0)) as listener, Wire(keys) as wire:
        port = listener.getsockname()[1]
        address = Address(bind="127.0.0.1", host="127.0.0.1", port=port, key=new_key_pair().public)
        line = wire.connect(address, identity=b"a0#the-session")
        line.send([SECRET.encode()])
        connection, _ = listener.accept()
        with connection:
            connection.sendall(GREETING[:-32] + b"\1" + GREETING[-31:])
            heard = b""
            while select.select([connection], [], [], 1.0)[0] and (got := connection.recv(65536)):
                heard += got

    assert len(heard) > len(GREETING), "it said hello"
    assert SECRET.encode() not in heard
    assert b"the-session" not in heard


_LOW_LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from tests.handshake import a_crowd
from tests.wires import a_place
with a_place(tcp=True) as place, a_crowd(place.door.address, 600):
    open("/dev/null").close()
    place.door.close()
"""


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000, reason="low hard limit")
def test_strangers_leave_descriptors_for_the_process_that_listens() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOW_LIMIT],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
