"""What the agent sees of a cell is short, complete and counted: tracebacks and transcripts."""

import asyncio
import tracemalloc

import pytest

from actors.kernels.exits import explain_exit
from actors.kernels.interface import DeathCause
from actors.kernels.jupyter.transcript import CellTranscript
from actors.kernels.sandboxed.tracebacks import format_traceback


def shown(code):
    """The traceback of ``code``, run as cell 1."""
    try:
        exec(compile(code, "cell", "exec"), {})
    except BaseException as error:
        frames = error.__traceback__.tb_next
        return format_traceback(error, frames, {"cell": "Cell In[1]"}.get)
    raise AssertionError("the code did not raise")


def test_an_endless_recursion_shows_how_it_begins():
    lines = shown("def f(n):\n    f(n + 1)\nf(0)").splitlines()

    assert lines[1:3] == ["  Cell In[1], line 3", "  Cell In[1], line 2 in f"]
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[-2:] == [
        "  ... and so on, until the recursion was too deep",
        "RecursionError: maximum recursion depth exceeded",
    ]


def test_many_frames_lose_their_middle():
    code = "def f(n):\n    if n == 0:\n        raise ValueError('bottom')\n    f(n - 1)\nf(49)"

    lines = shown(code).splitlines()

    assert "  ... 33 more frames ..." in lines
    assert lines[-2:] == ["  Cell In[1], line 3 in f", "ValueError: bottom"]
    assert len(lines) == 1 + 10 + 1 + 8 + 1


@pytest.mark.parametrize(("depth", "folded"), [(18, False), (19, False), (20, True)])
def test_nothing_is_left_out_that_takes_no_more_room_than_saying_so(depth, folded):
    code = f"def f(n):\n    if n == 1:\n        1 / 0\n    f(n - 1)\nf({depth - 1})"

    assert ("more frames" in shown(code)) is folded


def test_an_exception_group_shows_what_is_in_it():
    code = (
        "def fail():\n    raise KeyError('k')\n"
        "try:\n    fail()\nexcept KeyError as error:\n    inner = error\n"
        "raise ExceptionGroup('two', [inner, ExceptionGroup('more', [OSError('disk')])])"
    )

    assert shown(code).splitlines()[2:] == [
        "ExceptionGroup: two (2 sub-exceptions)",
        "  sub-exception 1 of 2:",
        "    Traceback (most recent call last):",
        "      Cell In[1], line 4",
        "      Cell In[1], line 2 in fail",
        "    KeyError: 'k'",
        "  sub-exception 2 of 2:",
        "    ExceptionGroup: more (1 sub-exception)",
        "      sub-exception 1 of 1:",
        "        OSError: disk",
    ]


def test_large_and_deep_exception_groups_are_cut():
    wide = shown("raise ExceptionGroup('wide', [ValueError(n) for n in range(100)])")
    deep = shown(
        "error = ValueError('core')\n"
        "for n in range(50):\n    error = ExceptionGroup(str(n), [error])\n"
        "raise error"
    )

    assert wide.endswith("  ... 96 more sub-exceptions ...\n")
    assert len(wide.splitlines()) < 15
    assert "core" not in deep
    assert len(deep.splitlines()) < 15


def test_a_cancelled_error_is_shown_like_any_other():
    code = "import asyncio\nraise asyncio.CancelledError('stop')"

    assert shown(code).endswith("asyncio.exceptions.CancelledError: stop\n")
    assert asyncio.CancelledError.__module__ == "asyncio.exceptions"


def test_a_transcript_counts_outputs_as_a_notebook_shows_them():
    transcript = CellTranscript(1000)

    for name, text in (("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")):
        transcript.add("stream", {"name": name, "text": text})
    transcript.add("display_data", {"data": {"text/plain": "value"}})
    transcript.add("execute_result", {"data": {"text/plain": "value"}})
    transcript.add("stream", {"name": "stdout", "text": "e"})
    transcript.add("error", {"traceback": ["Error"]})
    transcript.add("status", {"execution_state": "idle"})

    assert transcript.outputs == 7


@pytest.mark.parametrize(
    "content",
    [{}, {"text": None}, {"data": None}, {"data": []}, {"traceback": "text"}, {"traceback": [{}]}],
)
@pytest.mark.parametrize("kind", ["stream", "execute_result", "display_data", "error", "other"])
def test_odd_messages_do_no_harm(kind, content):
    transcript = CellTranscript(1000)

    transcript.add(kind, content)

    assert isinstance(transcript.finish()[0], str)


def test_of_one_enormous_message_only_the_ends_are_looked_at():
    """The host puts transcripts together: an answer in backspaces must not keep it busy."""
    transcript = CellTranscript(1000)
    text = "first\n" + "a\b" * 2_000_000 + "\nlast"
    tracemalloc.start()
    try:
        transcript.add("stream", {"name": "stdout", "text": text})
        shown, dropped, _ = transcript.finish()
        assert tracemalloc.get_traced_memory()[1] < 2 * len(text)
    finally:
        tracemalloc.stop()

    assert (shown[:6], shown[-5:]) == ("first\n", "\nlast")
    assert dropped > 3_990_000


def test_a_transcript_that_ends_early_says_so_even_when_it_is_full():
    transcript = CellTranscript(4)
    transcript.add("stream", {"name": "stdout", "text": "12345678"})

    transcript.end_early()

    assert transcript.finish()[0].endswith(
        "78[output was lost: too much of it, or too much at once]\n"
    )


@pytest.mark.parametrize(
    ("code", "words", "cause"),
    [
        (0, "its process exited with code 0", DeathCause.EXITED),
        (-9, "its process was killed by SIGKILL", DeathCause.EXITED),
        (-11, "its process was killed by SIGSEGV", DeathCause.EXITED),
        (-99, "its process was killed by signal 99", DeathCause.EXITED),
        (-24, "one process used 2.5 s of CPU (kernel.cpu_s)", DeathCause.CPU),
    ],
)
def test_an_exit_is_explained(code, words, cause):
    assert explain_exit(code, 2.5) == (words, cause)
