"""The host's parser of what untrusted kernels send."""

import asyncio
import tracemalloc

import msgpack
import pytest

from actors.kernels.frames import (
    Call,
    Done,
    Filed,
    FrameBudget,
    FrameError,
    FrameReader,
    Ready,
    encode,
)
from actors.kernels.interface import DeathCause
from actors.kernels.jupyter.transcript import CellTranscript
from actors.kernels.session import KernelSession, SessionLimits
from actors.kernels.tool_specs import ToolSpec

MESSAGES = [
    (["ready"], Ready()),
    (["done", 1, "ok", "out", 0, None, 1], Done(1, False, "out", 0, None, 1)),
    (["done", 2, "error", "", 7, "ValueError", 2], Done(2, True, "", 7, "ValueError", 2)),
    (["filed", None], Filed(None)),
    (["filed", "ENOSPC"], Filed("ENOSPC")),
    (["call", 3, "search", ["a"], {"k": 2}], Call(3, "search", ("a",), {"k": 2})),
]


@pytest.mark.parametrize(("wire", "message"), MESSAGES)
def test_a_frame_becomes_its_message(wire, message):
    assert FrameReader(FrameBudget()).feed(encode(wire)) == [message]


@pytest.mark.parametrize(
    "wire",
    [
        [],
        7,
        "ready",
        ["ready", 1],
        ["out", 1, "text"],
        ["done", "1", "ok", "", 0, None, 0],
        ["done", 1, "fine", "", 0, None, 0],
        ["done", 1, "ok", b"", 0, None, 0],
        ["done", 1, "ok", "", -1, None, 0],
        ["done", 1, "ok", "", 0, 5, 0],
        ["done", 1, "ok", "", 0, "E" * 1000, 0],
        ["done", 1, "ok", "", 0, None, -1],
        ["done", 1, "ok", "", 0, None],
        ["done", True, "ok", "", 0, None, 0],
        ["done", 1, "ok", "", False, None, 0],
        ["done", 1, "ok", "", 0, None, True],
        ["exited", True],
        ["call", True, "search", [], {}],
        ["filed"],
        ["filed", 3],
        ["filed", "E" * 1000],
        ["call", 1, "search", "a", {}],
        ["call", 1, "search", [], []],
        ["call", 1, 5, [], {}],
        ["call", 1, "x" * 1000, [], {}],
        ["call", 1.5, "search", [], {}],
        ["call", 1, "search", [msgpack.ExtType(5, b"")], {}],
    ],
)
def test_anything_else_is_a_violation(wire):
    with pytest.raises(FrameError):
        FrameReader(FrameBudget()).feed(encode(wire))


@pytest.mark.parametrize(
    "arguments",
    [
        [[]] * 1_000_000,
        [[[]] * 8000] * 100,
        [{"a": [None] * 16_000}] * 60,
        [[None] * 17_000],
        [0] * 257,
    ],
)
def test_more_values_than_anybody_looks_at_are_refused_before_they_are_made(arguments):
    frame = encode(["call", -1, "search", arguments, {}])
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            FrameReader(FrameBudget()).feed(frame)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"\xc1", b"\x93\x01", b"\xdd\xff\xff\xff\xff", b"\x91" * 3000])
def test_bytes_that_are_not_msgpack_are_a_violation(body):
    with pytest.raises(FrameError, match="msgpack"):
        FrameReader(FrameBudget()).feed(len(body).to_bytes(4, "big") + body)


def test_the_byte_budget_holds_between_renewals():
    reader = FrameReader(FrameBudget(total_bytes=100))
    frame = encode(["done", 1, "ok", "x" * 60, 0, None, 0])

    reader.feed(frame)
    reader.renew()
    reader.feed(frame)

    with pytest.raises(FrameError, match="100 bytes"):
        reader.feed(frame)


def test_the_frame_budget_bounds_tiny_frames():
    reader = FrameReader(FrameBudget(frames=10))

    with pytest.raises(FrameError, match="10 frames"):
        reader.feed(encode(["ready"]) * 11)


def test_the_budget_of_values_holds_between_renewals():
    reader, frame = FrameReader(FrameBudget()), encode(["call", -1, "search", [[[]] * 8000], {}])

    reader.feed(frame * 16)
    reader.renew()
    reader.feed(frame * 16)

    with pytest.raises(FrameError, match="262144 values"):
        reader.feed(frame)


def test_a_kernel_that_ended_calls_no_tool():
    called = []

    async def handler(name, arguments, keywords):
        called.append(name)

    async def scenario():
        session = KernelSession(
            "k",
            SessionLimits(grace_s=1.0, output_bytes=100),
            interrupt=lambda: None,
            kill=lambda: None,
            explain=lambda code: (f"code {code}", DeathCause.EXITED),
        )
        session.bind_tools([ToolSpec(name="search", doc="")], handler)
        call = encode(["call", 1, "search", [], {}])
        session.data_received(call + encode(["exited", 0]) + call)
        session.data_received(call)
        before = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(before)

    asyncio.run(scenario())

    assert called == []


def test_a_transcript_keeps_the_order_and_counts_what_it_drops():
    transcript = CellTranscript(8)

    transcript.add("stream", {"name": "stdout", "text": "abc\n"})
    transcript.add("execute_result", {"data": {"text/plain": "7", "text/html": "<b>7</b>"}})
    transcript.add("error", {"traceback": ["\x1b[31mKeyError\x1b[0m"]})
    transcript.add("status", {"execution_state": "idle"})

    assert transcript.finish() == ("abc\n\n[7 bytes of output dropped]\nror\n", 7, 3)
