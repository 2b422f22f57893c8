"""What a judge process answers is checked: it runs code that is not ours."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rewards.blame import place_in, place_of_function
from actors.rewards.judge.wire import (
    LENGTH,
    MAX_FAILURE_CHARACTERS,
    Failure,
    QuestionRequest,
    ScoreRequest,
    Setup,
    pack_answer,
    pack_request,
    pack_setup,
    unpack_answer,
    unpack_request,
    unpack_setup,
)
from actors.rewards.scorer import Scored
from common.config import Rewards
from common.errors import ProtocolError
from common.wire.records import Outcome, Step, Task

TASK = Task(task_id="t", question="q", answers=("a",), labels={"k": "v"}, files=("/f",))
TEXT = st.text(st.characters(), max_size=8)
STEPS = st.builds(
    Step,
    action=TEXT,
    code=st.none() | TEXT,
    observation=TEXT,
    tool_calls=st.lists(TEXT, max_size=2).map(tuple),
    outputs=st.integers(0, 10**9),
    seconds=st.floats(0, 1e9),
)


@given(st.none() | TEXT, st.lists(STEPS, max_size=3), st.sampled_from(Outcome))
def test_requests_read_back_equal(answer: str | None, steps: list[Step], outcome: Outcome) -> None:
    finished = ScoreRequest(task=TASK, answer=answer, steps=tuple(steps), outcome=outcome)

    for request in (finished, QuestionRequest(task=TASK)):
        assert unpack_request(pack_request(request)[LENGTH.size :]) == request


def test_a_setup_reads_back_equal() -> None:
    setup = Setup(path=("/a", "/b"), kinds=("m:K",), rewards=Rewards(terms={"m:t": -0.5}))

    assert unpack_setup(pack_setup(setup)[LENGTH.size :]) == setup


@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=4))
def test_answers_read_back_equal(rewards: list[float]) -> None:
    scored = Scored(step_rewards=np.array(rewards, dtype=np.float32), scores={"exact_match": 1.0})

    found = unpack_answer(pack_answer(scored)[LENGTH.size :], steps=len(rewards))

    assert isinstance(found, Scored)
    assert (found.step_rewards.tolist(), found.scores) == (rewards, scored.scores)


def test_what_an_exception_says_is_cut_to_text_that_can_travel() -> None:
    frame = pack_answer(Failure(plugin="p", text="\ud83d" + "x" * 10_000_000))

    failure = unpack_answer(frame[LENGTH.size :], steps=0)

    assert failure == Failure(plugin="p", text="?" + "x" * (MAX_FAILURE_CHARACTERS - 1))


@pytest.mark.parametrize(
    "answer",
    [
        ["scored", [1.0], {}],
        ["scored", [1.0, float("nan")], {}],
        ["scored", [1.0, 1e39], {}],
        ["scored", [1.0, "1"], {}],
        ["scored", [1.0, True], {}],
        ["scored", [1.0, 2.0], {"a": float("inf")}],
        ["scored", [1.0, 2.0], {3: 1.0}],
        ["scored", [1.0, 2.0], [["a", 1.0]]],
        ["scored", "ab", {}],
        ["scored"],
        ["asked", 3],
        ["asked", "\ud83d"],
        ["failed", "a"],
        ["other"],
        {},
        3,
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_refused(answer: Any) -> None:
    with pytest.raises(ProtocolError, match="a judge process answered nonsense"):
        unpack_answer(msgpack.packb(answer, unicode_errors="surrogatepass"), steps=2)


@given(st.binary(max_size=40))
def test_no_bytes_make_the_actor_raise_anything_else(data: bytes) -> None:
    try:
        unpack_answer(data, steps=1)
    except ProtocolError:
        return


def test_the_line_that_is_named_is_the_users_and_not_ours_or_a_librarys() -> None:
    stack = (
        "Current thread 0x1 (most recent call first):\n"
        f'  File "{np.__file__.replace("/numpy/", "/numpy/x/")}", line 1 in deep\n'
        '  File "/home/me/my agents/rewards.py", line 12 in slow\n'
        '  File "/home/me/other.py", line 3 in called\n'
    )

    assert place_in(stack) == " (/home/me/my agents/rewards.py, line 12, in slow)"
    assert place_in("") == ""
    assert place_of_function(len) == ""
    assert place_of_function(unpack_answer) == ""
