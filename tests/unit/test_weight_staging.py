import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.inference.staging import StagingReceiver
from common.errors import PolicyServerError, ProtocolError
from common.places import Address
from common.wire.records import WeightManifest
from common.wire.sockets import Line, new_key_pair
from common.wire.weights import (
    ReportKind,
    StagingReport,
    pack_manifest,
    pack_report,
    unpack_report,
    unpack_snapshot,
    worker_identity,
)
from learner.weights.channel import Snapshot, StagingChannel, take_snapshot
from learner.weights.workers import Workers
from tests.waiting import wait_for
from tests.wires import WORKER_LIMITS, Place, a_line, a_place

SERVER = "s0"


def make_state(value: float) -> dict[str, torch.Tensor]:
    return {
        "embed": torch.full((3, 4), value, dtype=torch.bfloat16),
        "norm": torch.arange(4, dtype=torch.float32) + value,
    }


def frames_of(snapshot: Snapshot) -> list[bytes]:
    return [pack_manifest(snapshot.manifest), *(bytes(frame) for frame in snapshot.frames)]


@pytest.fixture
def place() -> Iterator[Place]:
    with a_place([SERVER, "s1"], limits=WORKER_LIMITS) as place:
        yield place


@pytest.fixture
def channel(place: Place) -> Iterator[StagingChannel]:
    channel = StagingChannel(place.door)
    channel.expect(SERVER, 2)
    channel.start()
    yield channel
    channel.stop()


@pytest.fixture
def receiver(place: Place, channel: StagingChannel) -> Iterator[StagingReceiver]:
    receiver = StagingReceiver(channel.address, server=SERVER, rank=0, keys=place.keys[SERVER])
    yield receiver
    if any(thread.name == "weight-staging" for thread in threading.enumerate()):
        receiver.stop()


def test_report_survives_the_wire() -> None:
    said = StagingReport(
        server=SERVER, rank=1, kind=ReportKind.REFUSED, version=-1, reason="checksum"
    )

    assert unpack_report(pack_report(said)) == said


@pytest.mark.parametrize("frame", [b"", b"\xff", b"\x80", pack_report.__name__.encode()])
def test_bytes_that_are_no_report_are_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="staging report cannot be read"):
        unpack_report(frame)


def test_snapshot_does_not_change_with_the_model() -> None:
    state = make_state(1.0)

    snapshot = take_snapshot(1, state)
    state["norm"].add_(5)

    _, frames = unpack_snapshot(frames_of(snapshot))
    norm = torch.frombuffer(bytearray(frames[1]), dtype=torch.float32)
    assert torch.equal(norm, torch.tensor([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda frames: [*frames[:-1], b"\x01" + frames[-1][1:]], "checksum"),
        (lambda frames: frames[:-1], "lists 2 tensors, 1 came"),
        (lambda frames: [*frames[:-1], frames[-1][:-4]], "must be 16 bytes, got 12"),
        (lambda frames: [b"junk", *frames[1:]], "cannot be read"),
    ],
)
def test_damaged_snapshot_is_refused(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    frames = frames_of(take_snapshot(1, make_state(1.0)))

    with pytest.raises(ProtocolError, match=message):
        unpack_snapshot(damage(frames))


def test_worker_stages_what_is_offered_and_only_that_version(
    channel: StagingChannel, receiver: StagingReceiver
) -> None:
    receiver.start()

    for version in (1, 2):
        channel.offer(take_snapshot(version, make_state(float(version))))
        channel.wait_staged(SERVER, workers=1, version=version, timeout_s=10)

    assert receiver.take(2).own.manifest.version == 2
    with pytest.raises(LookupError, match="version 1 are not staged, version 2 is"):
        receiver.take(1)


def test_worker_that_comes_late_gets_the_newest_snapshot(
    channel: StagingChannel, receiver: StagingReceiver
) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))
    channel.offer(take_snapshot(5, make_state(5.0)))

    receiver.start()

    channel.wait_staged(SERVER, workers=1, version=5, timeout_s=10)
    assert receiver.take(5).own.manifest.tensors[0].dtype == "bfloat16"


def test_corrupted_snapshot_is_refused_with_its_cause(
    channel: StagingChannel, receiver: StagingReceiver
) -> None:
    receiver.start()
    channel.offer(take_snapshot(1, make_state(1.0)))
    channel.wait_staged(SERVER, workers=1, version=1, timeout_s=10)
    good = take_snapshot(2, make_state(2.0))

    channel.offer(Snapshot(manifest=good.manifest, frames=(good.frames[0], bytes(16))))

    with pytest.raises(PolicyServerError, match=r"worker 0 refused weights of version 2: .*checks"):
        channel.wait_staged(SERVER, workers=1, version=2, timeout_s=10)
    assert receiver.take(1).own.manifest.version == 1


def test_silence_of_a_worker_is_named(channel: StagingChannel) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))

    with pytest.raises(PolicyServerError, match="0 of 2 workers had received"):
        channel.wait_staged(SERVER, workers=2, version=1, timeout_s=0.05)


FIRST_WORKER = worker_identity(SERVER, 0)


@contextmanager
def peer(
    place: Place, *, member: str = SERVER, identity: bytes = FIRST_WORKER, server: str = SERVER
) -> Iterator[Line]:
    """A member who says hello as the first worker of SERVER, unless asked otherwise."""
    with place.line(member, identity=identity) as line:
        report(line, ReportKind.HELLO, -1, server=server)
        yield line


def report(
    line: Line, kind: ReportKind, version: int, *, rank: int = 0, server: str = SERVER
) -> None:
    line.send([pack_report(StagingReport(server=server, rank=rank, kind=kind, version=version))])


def receive(line: Line) -> WeightManifest:
    frames = line.receive(timeout_ms=10_000)
    assert frames is not None
    return unpack_snapshot(frames)[0]


def gets_nothing(line: Line) -> bool:
    return line.receive(timeout_ms=50) is None


def test_a_stranger_is_not_let_in_and_takes_nobodys_place(
    channel: StagingChannel, receiver: StagingReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.start()
    channel.offer(take_snapshot(1, make_state(1.0)))
    channel.wait_staged(SERVER, workers=1, version=1, timeout_s=10)
    with a_line(channel.address, new_key_pair(), identity=FIRST_WORKER) as line:
        report(line, ReportKind.HELLO, -1)
        wait_for(lambda: "refused a stranger" in caplog.text)

        channel.offer(take_snapshot(2, make_state(2.0)))
        channel.wait_staged(SERVER, workers=1, version=2, timeout_s=10)
        assert gets_nothing(line)
    assert receiver.take(2).own.manifest.version == 2


def test_a_member_speaks_for_its_own_server_alone(
    place: Place, channel: StagingChannel, caplog: pytest.LogCaptureFixture
) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))
    with peer(place, member="s1") as line:
        wait_for(lambda: "it speaks for 's0'" in caplog.text)
        assert gets_nothing(line)
    with pytest.raises(PolicyServerError, match="0 of 1 workers had received"):
        channel.wait_staged(SERVER, workers=1, version=1, timeout_s=0.05)


def test_only_workers_that_are_expected_are_served(place: Place, channel: StagingChannel) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))
    with (
        peer(place, member="s1", identity=b"s1#0", server="s1") as other,
        peer(place) as right,
    ):
        assert receive(right).version == 1
        assert gets_nothing(other)


def test_a_worker_that_does_not_read_keeps_one_version_alive(
    place: Place, channel: StagingChannel
) -> None:
    """It gets the next only after it has reported on the one before."""
    channel.offer(take_snapshot(0, make_state(0.0)))
    with peer(place) as line:
        first = receive(line)
        for version in range(1, 20):
            channel.offer(take_snapshot(version, make_state(float(version))))
        assert gets_nothing(line)
        report(line, ReportKind.STAGED, 0)

        second = receive(line)

    assert (first.version, second.version) == (0, 19)


def test_a_worker_that_says_hello_again_has_lost_what_it_held(
    place: Place, channel: StagingChannel
) -> None:
    channel.offer(take_snapshot(3, make_state(3.0)))
    with peer(place) as line:
        for _ in range(2):
            assert receive(line).version == 3
            for kind in (ReportKind.STAGED, ReportKind.HELLO):
                report(line, kind, 3)


def test_a_server_that_was_forgotten_gets_nothing(place: Place, channel: StagingChannel) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))
    with peer(place) as line:
        receive(line)
        report(line, ReportKind.STAGED, 1)
        channel.forget(SERVER)

        channel.offer(take_snapshot(2, make_state(2.0)))

        assert gets_nothing(line)


def test_a_worker_that_reports_what_it_was_not_sent_is_not_believed(
    place: Place, channel: StagingChannel
) -> None:
    channel.offer(take_snapshot(3, make_state(3.0)))
    with peer(place) as line:
        receive(line)
        for rank, version in ((0, 4), (1, 3)):
            report(line, ReportKind.STAGED, version, rank=rank)

        with pytest.raises(PolicyServerError, match="0 of 1 workers had received"):
            channel.wait_staged(SERVER, workers=1, version=3, timeout_s=0.3)


def test_a_version_that_was_overtaken_is_not_waited_for(channel: StagingChannel) -> None:
    channel.offer(take_snapshot(2, make_state(2.0)))

    with pytest.raises(PolicyServerError, match="version 1 were overtaken by 2"):
        channel.wait_staged(SERVER, workers=1, version=1, timeout_s=60)


def test_what_ends_the_thread_of_the_channel_is_told_to_who_waits_for_it(
    channel: StagingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise MemoryError("by a bug")

    monkeypatch.setattr(StagingChannel, "_send_what_is_due", fail)

    channel.offer(take_snapshot(1, make_state(1.0)))

    with pytest.raises(PolicyServerError, match=r"channel that sends weights failed: .*by a bug"):
        channel.wait_staged(SERVER, workers=1, version=1, timeout_s=60)


def test_any_error_of_a_worker_reaches_the_publisher_at_once(
    channel: StagingChannel, receiver: StagingReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("by a bug \ud800" + "x" * 100_000)

    monkeypatch.setattr("actors.inference.staging.unpack_snapshot", fail)
    receiver.start()

    channel.offer(take_snapshot(1, make_state(1.0)))

    with pytest.raises(PolicyServerError, match=r"worker 0 refused .*MemoryError.*by a bug"):
        channel.wait_staged(SERVER, workers=1, version=1, timeout_s=60)


def test_what_ends_the_thread_of_a_worker_is_told_to_who_asks_for_weights() -> None:
    nowhere = Address(bind="127.0.0.1", host="no host", port=1, key=new_key_pair().public)
    receiver = StagingReceiver(nowhere, server=SERVER, rank=0, keys=new_key_pair())
    receiver.start()
    receiver.stop()

    with pytest.raises(LookupError, match=r"version 1 are not staged.*receiver failed: .*Invalid"):
        receiver.take(1)


def empty(version: int, base: str) -> Snapshot:
    manifest = WeightManifest(version=version, tensors=(), checksum=f"sum of {version}", base=base)
    return Snapshot(manifest=manifest, frames=())


KINDS = [None, *ReportKind]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(KINDS), st.integers(-1, 6))))
def test_whatever_peers_report_only_what_was_sent_counts_and_one_at_a_time(
    events: list[tuple[int, ReportKind | None, int]],
) -> None:
    """Two workers are expected, four report; None stands for a new version, sometimes adapters."""
    workers, received = Workers(), {0: [], 1: []}  # type: ignore[var-annotated]
    workers.expect(SERVER, 2)
    base = newest = empty(0, "")
    for rank, kind, version in events:
        if kind is None:
            number = newest.manifest.version + 1
            newest = empty(number, "" if rank % 2 else base.manifest.checksum)
            base = newest if rank % 2 else base
        else:
            said = StagingReport(server=SERVER, rank=rank, kind=kind, version=version)
            workers.hear(worker_identity(SERVER, rank), said)
            if kind is ReportKind.HELLO and rank in received:
                received[rank] = []
        for worker in workers.of(SERVER):
            due = workers.due(worker, newest, base)
            if due is not None:
                assert worker.under_way is None
                workers.sent(worker, due.manifest)
                received[worker.rank].append(due.manifest)

    assert {worker.rank for worker in workers.of(SERVER)} == {0, 1}
    for worker in workers.of(SERVER):
        own = received[worker.rank]
        assert worker.staged is None or worker.staged in [m.version for m in own]
        held = [m.checksum for m in own if not m.base]
        assert all(m.base in held for m in own if m.base), "adapters come after their weights"
