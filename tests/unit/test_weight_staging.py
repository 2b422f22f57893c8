import threading
from collections.abc import Iterator

import pytest
import torch

from actors.inference.staging import StagingReceiver
from common.errors import PolicyServerError, ProtocolError
from common.weight_wire import (
    ReportKind,
    StagingReport,
    pack_manifest,
    pack_report,
    unpack_report,
    unpack_snapshot,
)
from learner.weights.staging import Snapshot, StagingChannel, take_snapshot

SERVER = "http://127.0.0.1:1"


def make_state(value: float) -> dict[str, torch.Tensor]:
    return {
        "embed": torch.full((3, 4), value, dtype=torch.bfloat16),
        "norm": torch.arange(4, dtype=torch.float32) + value,
    }


def frames_of(snapshot: Snapshot) -> list[bytes]:
    return [pack_manifest(snapshot.manifest), *(bytes(frame) for frame in snapshot.frames)]


@pytest.fixture
def channel() -> Iterator[StagingChannel]:
    channel = StagingChannel()
    channel.start()
    yield channel
    channel.stop()


@pytest.fixture
def receiver(channel: StagingChannel) -> Iterator[StagingReceiver]:
    receiver = StagingReceiver(endpoint=channel.endpoint, server=SERVER, rank=0)
    yield receiver
    if any(thread.name == "weight-staging" for thread in threading.enumerate()):
        receiver.stop()


def test_report_survives_the_wire() -> None:
    report = StagingReport(
        server=SERVER, rank=1, kind=ReportKind.REFUSED, version=-1, reason="checksum"
    )

    assert unpack_report(pack_report(report)) == report


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

    assert receiver.take(2).manifest.version == 2
    with pytest.raises(LookupError, match="version 1 are not staged, version 2 is"):
        receiver.take(1)


def test_worker_that_comes_late_gets_the_newest_snapshot(
    channel: StagingChannel, receiver: StagingReceiver
) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))
    channel.offer(take_snapshot(5, make_state(5.0)))

    receiver.start()

    channel.wait_staged(SERVER, workers=1, version=5, timeout_s=10)
    assert receiver.take(5).manifest.tensors[0].dtype == "bfloat16"


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
    assert receiver.take(1).manifest.version == 1


def test_silence_of_a_worker_is_named(channel: StagingChannel) -> None:
    channel.offer(take_snapshot(1, make_state(1.0)))

    with pytest.raises(PolicyServerError, match="0 of 2 workers had received"):
        channel.wait_staged(SERVER, workers=2, version=1, timeout_s=0.05)
