"""Records survive the wire unchanged, and malformed bytes never become a record."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.wire.codec import decode, encode
from common.wire.records import Purpose, Task, TaskLease, Trajectory
from common.wire.session import Ack, Heartbeat, Hello, HelloWanted, Message
from tests.makers import make_trajectory


def as_bytes(frames: list[bytes | memoryview]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def test_trajectory_survives_the_wire_with_every_array() -> None:
    sent = make_trajectory(lengths=(3, 5), version=7)

    received = decode(as_bytes(encode(sent)))

    assert isinstance(received, Trajectory)
    assert received.trajectory_id == sent.trajectory_id
    assert received.outcome is sent.outcome
    assert received.steps == sent.steps
    assert received.scores == sent.scores
    np.testing.assert_array_equal(received.step_rewards, sent.step_rewards)
    for got, expected in zip(received.segments, sent.segments, strict=True):
        np.testing.assert_array_equal(got.token_ids, expected.token_ids)
        np.testing.assert_array_equal(got.behaviour_logprobs, expected.behaviour_logprobs)


@pytest.mark.parametrize(
    "record",
    [
        Ack(trajectory_id="a"),
        Heartbeat(seen=3, leases=("x", "y")),
        HelloWanted(),
        Hello(actor_id="a0", session="s", schema_version=1, credit=4, kernel_level="A"),
        TaskLease(
            lease_id="l",
            group_id="g",
            sample_index=3,
            purpose=Purpose.TRAIN,
            temperature=1.0,
            task=Task(task_id="t", question="Où?", answers=("Kö",), labels={"kind": "x"}),
        ),
    ],
    ids=lambda record: type(record).__name__,
)
def test_small_records_are_equal_after_the_wire(
    record: Message,
) -> None:
    assert decode(as_bytes(encode(record))) == record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("extra", 1, "Trajectory must have the fields .*trajectory_id"),
        ("steps", {}, "expected a list, got dict"),
        ("steps", [{}], "Step must have the fields"),
        ("scores", [], "expected a map, got list"),
        ("scores", {"f1": "1"}, "expected float, got str"),
        ("sample_index", True, "expected int, got bool"),
        ("sample_index", 1.5, "expected int, got float"),
        ("scores", {"f1": True}, "expected float, got bool"),
        ("answer", 7, "expected str, got int"),
        ("outcome", "lost", "'lost' is not a valid Outcome"),
        ("step_rewards", 7, "malformed Trajectory: "),
        ("step_rewards.0", 0, "array frame 0 of"),
        ("step_rewards.0", 99, "array frame 99 of"),
        ("step_rewards.0", True, "array frame True of"),
        ("step_rewards.1", "int32", "expected an array of float32, got int32"),
        ("step_rewards.1", "object", "malformed Trajectory: 'object'"),
        ("step_rewards.2", [3], "expected 3 numbers in frame"),
        ("step_rewards.2", [2, 1], "arrays have one dimension"),
        ("step_rewards.2", [2.0], "arrays have one dimension"),
        ("step_rewards.2", 2, "arrays have one dimension"),
    ],
)
def test_what_is_wrong_with_a_trajectory_is_named(path: str, value: object, message: str) -> None:
    header, *arrays = as_bytes(encode(make_trajectory()))
    kind, body = msgpack.unpackb(header)
    name, _, place = path.partition(".")
    if place:
        body[name][int(place)] = value
    else:
        body[name] = value

    with pytest.raises(ProtocolError, match=message):
        decode([msgpack.packb([kind, body]), *arrays])


@pytest.mark.parametrize("header", [["Nobody", {}], [["Ack"], {}], ["Ack"], {}, 7])
def test_a_message_of_no_known_kind_is_refused(header: object) -> None:
    with pytest.raises(ProtocolError, match="message header cannot be read"):
        decode([msgpack.packb(header)])


def test_missing_field_is_named_in_the_error() -> None:
    with pytest.raises(ProtocolError, match=r"malformed Ack: .*trajectory_id"):
        decode([msgpack.packb(["Ack", {}])])


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_arbitrary_bytes_raise_a_protocol_error_and_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode(frames)
