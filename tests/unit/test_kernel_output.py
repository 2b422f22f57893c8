"""What is kept of a cell's output: what a terminal shows, and both ends of what is too long."""

import os
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.kernels.interface import CellResult, CellStatus
from actors.kernels.sandboxed.capture import Capture
from actors.kernels.sandboxed.clip import MOST_MARK, SLACK_BYTES, Clip, dropped_mark
from actors.kernels.sandboxed.terminal import as_terminal

PIECES = ("a", "b", "ä", "\r", "\b", "\n", "\x1b[K", "\x1b[0K", "\x1b[2K")
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def typed(text):
    """The screen after ``text``, one character at a time."""
    lines, column = [[]], 0
    for letter in re.findall(r"\x1b\[[02]?K|[^\x1b]", text.replace("\r\n", "\n")):
        if letter == "\n":
            lines.append([])
            column = 0
        elif letter == "\r":
            column = 0
        elif letter == "\b":
            column = max(0, column - 1)
        elif letter == "\x1b[2K":
            lines[-1] = [" "] * column
        elif letter.endswith("K"):
            del lines[-1][column:]
        else:
            lines[-1][column : column + 1] = letter
            column += 1
    return "\n".join(map("".join, lines))


@given(WRITTEN)
def test_lines_that_overwrite_themselves_end_as_in_a_terminal(text):
    assert as_terminal(text) == typed(text)


@given(WRITTEN, WRITTEN)
@example("a\r", "\nb")
def test_a_reduced_text_can_be_gone_on_with(first, second):
    assert as_terminal(as_terminal(first, goes_on=True) + second) == typed(first + second)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r100%\n", "100%\n"),
        ("long line\rshort", "shortline"),
        ("working\r\x1b[Kdone", "done"),
        ("working\x1b[2Kx", "       x"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_what_progress_bars_do_is_understood(text, shown):
    assert as_terminal(text) == shown


@pytest.mark.parametrize(
    ("moves", "end"),
    [("\ry", "x"), ("\x1b[2Ky", "y"), ("\x1b[2K\b\by", "y"), ("\rz\x1b[K", "z")],
    ids=["back", "erased", "erased and back", "cut off"],
)
def test_rewriting_a_long_line_again_and_again_takes_no_time_squared(moves, end):
    started = time.process_time()

    assert as_terminal("x" * 60_000 + moves * 60_000)[-1] == end

    assert time.process_time() - started < 2


def clipped(pieces, limit):
    clip = Clip(limit)
    for piece in pieces:
        clip.append(piece)
    return clip.text(), clip.dropped


@given(st.lists(st.text(st.sampled_from("abä€😀"), max_size=9)), st.integers(0, 40))
def test_a_clip_keeps_both_ends_however_it_was_written(pieces, limit):
    whole = "".join(pieces).encode()

    text, dropped = clipped([piece.encode() for piece in pieces], limit)

    if len(whole) <= limit:
        assert (text, dropped) == (whole.decode(), 0)
        return
    head, tail = text.split(dropped_mark(dropped))
    assert whole.startswith(head.encode())
    assert whole.endswith(tail.encode())
    kept = len(head.encode()) + len(tail.encode())
    assert kept + dropped == len(whole)
    assert limit - 6 <= kept <= limit
    assert clipped([whole], limit) == (text, dropped)


def test_a_long_text_is_shortened_while_it_is_written():
    clip = Clip(1000)

    for number in range(30_000):
        clip.append(b"%09d\n" % number)
        assert len(clip._head) + len(clip._tail) <= 2 * (1000 + SLACK_BYTES)

    text = clip.text()
    assert text.startswith("000000000\n000000001\n")
    assert text.endswith("000029999\n")
    assert clip.dropped == 300_000 - 1000
    assert len(text) <= 1000 + MOST_MARK


def test_progress_bars_push_nothing_out():
    clip = Clip(1000)
    clip.append(b"before\n")

    for number in range(30_000):
        clip.append(b"\r%5d of 30000" % number)
    clip.append(b"\nafter\n")

    assert as_terminal(clip.text()) == "before\n29999 of 30000\nafter\n"


@pytest.fixture
def capture():
    """A capture with the memory file that processes write to."""
    made = Capture()
    made.descriptor = os.memfd_create("output")
    yield made
    os.close(made.descriptor)


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 300_000, 1 << 20])
def test_what_processes_write_is_kept_up_to_the_limit(capture, size):
    capture.begin(1 << 20)
    os.write(capture.descriptor, b"x" * (size - 1) + b"y")

    text, dropped, _ = capture.finish()

    assert (len(text), text[-1], dropped) == (size, "y", 0)


@pytest.mark.parametrize("limit", [0, 10, 65_536])
def test_of_a_flood_of_processes_both_ends_are_kept(capture, limit):
    capture.begin(limit)
    capture.write("first\n")
    os.write(capture.descriptor, b"a" * 3_000_000 + b"b" * 3_000_000)
    capture.write("last")

    text, dropped, outputs = capture.finish()

    head, tail = text.split(dropped_mark(dropped))
    assert head == ("first\n" + "a" * 99_999)[: limit // 2]
    assert tail == ("b" * 99_999 + "last")[99_999 + 4 - limit // 2 :]
    assert (dropped, outputs) == (6_000_010 - limit, 3)


def test_of_one_enormous_text_both_ends_are_kept_and_all_of_it_counted(capture):
    capture.begin(100)

    capture.write("ä" * 400_000 + "end")

    text, dropped, _ = capture.finish()
    assert text == "ä" * 25 + dropped_mark(800_003 - 99) + "ä" * 23 + "end"
    assert dropped == 800_003 - 99


def result(**changes):
    told = {"output": "", "dropped_bytes": 0, "error_name": None, "outputs": 0, **changes}
    return CellResult(status=CellStatus.OK, seconds=0.0, **told)


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 10**30, 1.0, "1", None, [1]])
@pytest.mark.parametrize("name", ["dropped_bytes", "outputs"])
def test_a_result_counts_only_what_can_be_counted(name, count):
    with pytest.raises(ValueError, match=name):
        result(**{name: count})


def test_a_result_can_always_be_encoded():
    told = result(output="a\ud800ä", error_name="\udfff" * 300)

    assert (told.output, told.error_name) == ("a?ä", "?" * 200)
