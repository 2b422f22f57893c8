"""The parser of what untrusted kernels send, under arbitrary input.

Whatever comes: only ``FrameError`` may be raised, the budgets hold, and what was valid comes
out unchanged, however the stream is cut.
"""

import struct

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernels.frames import (
    Call,
    Done,
    Exited,
    Filed,
    FrameBudget,
    FrameError,
    FrameReader,
    Ready,
    encode,
)

SMALL = FrameBudget(frame_bytes=300, total_bytes=2000, frames=20)
WIDE = FrameBudget(frame_bytes=1 << 20, total_bytes=8 << 20, frames=1000)
NATURAL = st.integers(0, 2**63)
NAME = st.text(max_size=40)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
MESSAGE = st.one_of(
    st.just(Ready()),
    st.builds(Filed, st.none() | NAME),
    st.builds(Exited, st.integers(-255, 255)),
    st.builds(
        Done, NATURAL, st.booleans(), st.text(max_size=50), NATURAL, st.none() | NAME, NATURAL
    ),
    st.builds(
        Call,
        NATURAL,
        NAME,
        st.lists(VALUE, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=8), VALUE, max_size=3),
    ),
)
CUTS = st.lists(st.integers(1, 64), max_size=40)


def wire(message):
    """What the kernel sends for a message."""
    match message:
        case Ready():
            return ["ready"]
        case Filed(problem):
            return ["filed", problem]
        case Exited(code):
            return ["exited", code]
        case Done(cell, failed, output, dropped, name, outputs):
            status = "error" if failed else "ok"
            return ["done", cell, status, output, dropped, name, outputs]
        case Call(number, name, arguments, keywords):
            return ["call", number, name, list(arguments), keywords]


def pieces(stream, cuts):
    start = 0
    for size in cuts:
        yield stream[start : start + size]
        start += size
    yield stream[start:]


def read(stream, cuts, budget):
    """The messages up to the first violation, and whether there was one; checks the budgets."""
    reader, found, fed = FrameReader(budget), [], 0
    for piece in pieces(stream, cuts):
        try:
            messages = reader.feed(piece)
        except FrameError:
            return found, True
        found += messages
        fed += len(piece)
        assert fed <= budget.total_bytes
        assert len(found) <= budget.frames
        assert len(reader._buffer) <= 4 + budget.frame_bytes
    return found, False


@given(st.lists(MESSAGE, max_size=12), CUTS)
def test_valid_messages_come_out_unchanged_however_the_stream_is_cut(messages, cuts):
    stream = b"".join(encode(wire(message)) for message in messages)

    assert read(stream, cuts, WIDE) == (messages, False)


@settings(max_examples=300)
@given(st.binary(max_size=3000), CUTS)
def test_arbitrary_bytes_raise_nothing_but_a_violation(data, cuts):
    read(data, cuts, SMALL)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=400), max_size=30), CUTS)
def test_arbitrary_bodies_raise_nothing_but_a_violation(bodies, cuts):
    read(b"".join(struct.pack(">I", len(body)) + body for body in bodies), cuts, SMALL)


@settings(max_examples=60)
@given(st.lists(VALUE | st.lists(VALUE, max_size=8), max_size=10), CUTS)
def test_other_values_are_violations_unless_they_are_messages(values, cuts):
    found, _ = read(b"".join(map(encode, values)), cuts, WIDE)

    for message, value in zip(found, values, strict=False):
        assert wire(message) == value


@settings(max_examples=300)
@given(
    st.lists(MESSAGE, min_size=1, max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["set", "insert", "delete"]), st.integers(0), st.integers(0, 255)
        ),
        min_size=1,
        max_size=4,
    ),
    CUTS,
)
def test_mutated_streams_raise_nothing_but_a_violation(messages, mutations, cuts):
    stream = bytearray(b"".join(encode(wire(message)) for message in messages))
    for kind, position, byte in mutations:
        if kind == "insert" or not stream:
            stream.insert(position % (len(stream) + 1), byte)
        elif kind == "set":
            stream[position % len(stream)] = byte
        else:
            del stream[position % len(stream)]

    read(bytes(stream), cuts, SMALL)


@given(st.lists(MESSAGE, min_size=1, max_size=6), CUTS)
def test_a_violation_does_not_depend_on_how_the_stream_is_cut(messages, cuts):
    stream = b"".join(encode(wire(message)) for message in messages) + encode(["no", "message"])

    found, violated = read(stream, cuts, WIDE)

    assert violated
    assert found == messages[: len(found)]


@given(st.integers(301, 2**32 - 1), st.binary(max_size=50), CUTS)
def test_a_frame_beyond_the_limit_is_refused_before_its_body_is_kept(length, body, cuts):
    stream = struct.pack(">I", length) + body

    assert read(stream, cuts, SMALL) == ([], True)


@given(
    st.integers(1, 3000),
    st.integers(0, 8),
    st.sampled_from([b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"]),
)
def test_nesting_is_a_violation_or_a_value_but_never_a_crash(depth, tail, opener):
    body = msgpack.packb("call") + opener * depth + b"\xc0" * tail

    read(struct.pack(">I", len(body) + 1) + b"\x95" + body, [], WIDE)
