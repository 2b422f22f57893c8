"""A million damaged frames end nothing, and are refused in the one way that there is."""

import logging
from itertools import islice
from pathlib import Path

import pytest
import torch

from common.errors import ProtocolError
from common.wire.codec import claim_of, decode
from common.wire.parts import join
from common.wire.weights import unpack_report, unpack_snapshot
from learner.weights.channel import StagingChannel, take_snapshot
from tests.coordination import Peer, a_peer, an_intake, answer
from tests.fuzz import as_views, messages
from tests.waiting import wait_for
from tests.wires import WORKER_LIMITS, a_place

DECODED = 700_000
"""Messages, of one and a half frames each."""
SENT = 250_000

pytestmark = [pytest.mark.nightly, pytest.mark.slow]


def test_whatever_is_decoded_is_a_record_or_a_protocol_error() -> None:
    refused = 0
    for frames in islice(messages(seed=1), DECODED):
        views = as_views(frames)
        claim_of(views)
        for parse in (
            decode,
            lambda views: join(views, limit=1000),
            unpack_snapshot,
            lambda views: unpack_report(views[0]),
        ):
            try:
                parse(views)
            except ProtocolError:
                refused += 1

    assert DECODED < refused < 4 * DECODED, "most are damaged, some are not"


def test_whatever_comes_to_the_coordinator_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        a_place(("a0", "a1")) as place,
        an_intake(place, tmp_path) as intake,
        a_peer(place) as peer,
        a_peer(place, "a1", b"a1#s") as flooding,
    ):
        leases = peer.joined()
        for sent, frames in enumerate(islice(messages(seed=2), SENT)):
            flooding.line.send(frames)
            if sent % 100 == 0:
                heard_all(flooding)
        heard_all(flooding, quiet_ms=2000)
        peer.say(*map(answer, leases))
        assert len(intake.take_batch(learner_version=0, timeout_s=30)) == 2

    assert "message refused" in caplog.text
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def heard_all(peer: Peer, *, quiet_ms: int = 0) -> None:
    while peer.line.receive(timeout_ms=quiet_ms) is not None:
        pass


def test_whatever_comes_to_the_weight_channel_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with a_place(("s0",), limits=WORKER_LIMITS) as place:
        channel = StagingChannel(place.door)
        channel.expect("s0", 1)
        channel.start()
        channel.offer(take_snapshot(1, {"norm": torch.ones(4)}))
        with place.line("s0", identity=b"s0#0#x") as line:
            for frames in islice(messages(seed=3), SENT // 5):
                line.send(frames)
            wait_for(lambda: "ignored a report" in caplog.text)
            channel.expect("s0", 1)
            with pytest.raises(Exception, match="0 of 1 workers had received"):
                channel.wait_staged("s0", workers=1, version=1, timeout_s=1)
        channel.stop()

    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
