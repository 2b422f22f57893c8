"""Waiting for tools is the time in which a cell did nothing else, and never more than its cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.agent.tool_clock import ToolClock


def test_the_wait_of_a_cell_that_calls_one_tool_after_another_is_their_sum() -> None:
    clock = ToolClock()
    clock.begin_cell(10.0)
    for start, end in ((11.0, 13.0), (13.5, 14.0)):
        clock.end_call(clock.begin_call(start), end)
    under_way = clock.begin_call(15.0)
    assert (clock.cells_s(16.0), clock.waits_s(16.0)) == (6.0, 3.5)

    clock.end_cell(17.0, by_itself=False)

    assert clock.ended_waiting
    assert (clock.cells_s(99.0), clock.waits_s(99.0)) == (7.0, 4.5)
    clock.end_call(under_way, 20.0)
    assert clock.waits_s(99.0) == 4.5


def test_calls_at_once_are_the_cells_own_work() -> None:
    clock = ToolClock()
    clock.begin_cell(0.0)
    calls = [clock.begin_call(0.0) for _ in range(30)]
    for call in calls:
        clock.end_call(call, 10.0)
    clock.end_cell(10.0, by_itself=True)

    assert (clock.cells_s(10.0), clock.waits_s(10.0)) == (10.0, 0.0)


@pytest.mark.parametrize("alone", [True, False])
def test_a_call_beside_the_cell_is_no_wait(alone: bool) -> None:
    clock = ToolClock()
    clock.begin_cell(0.0)
    clock.begin_call(1.0, alone=alone)
    clock.end_cell(9.0, by_itself=alone)

    assert not clock.ended_waiting
    assert clock.waits_s(9.0) == 0.0


def test_a_call_that_an_interrupted_cell_left_does_not_spoil_the_next_one() -> None:
    clock = ToolClock()
    clock.begin_cell(0.0)
    left = clock.begin_call(0.0)
    clock.end_cell(1.0, by_itself=False)
    between = clock.begin_call(1.5)
    clock.begin_cell(2.0)
    own = clock.begin_call(2.0)
    clock.end_call(left, 2.5)
    clock.end_call(between, 2.5)
    clock.end_call(own, 4.0)
    clock.end_cell(4.0, by_itself=True)

    assert clock.waits_s(4.0) == 3.0


HISTORY = st.lists(
    st.tuples(
        st.sampled_from(["cell", "cell", "call", "call", "answer", "answer"]),
        st.integers(0, 9),
        st.booleans(),
        st.floats(0.0, 5.0),
    ),
    max_size=40,
)


@given(HISTORY)
def test_waits_never_exceed_cells_and_cells_never_the_wall(
    history: list[tuple[str, int, bool, float]],
) -> None:
    clock, now, in_cell, calls = ToolClock(), 0.0, False, list[int]()
    at_most = 0.0
    for what, which, flag, seconds in history:
        before = clock.waits_s(now)
        now += seconds
        at_most += seconds if in_cell else 0.0
        assert clock.waits_s(now) <= before + (seconds if in_cell else 0.0) + 1e-9
        if what == "cell" and in_cell:
            clock.end_cell(now, by_itself=flag)
            in_cell = False
        elif what == "cell":
            clock.begin_cell(now)
            in_cell = True
        elif what == "call":
            calls.append(clock.begin_call(now, alone=flag or which > 3))
        elif calls:
            clock.end_call(calls.pop(which % len(calls)), now)
        assert -1e-9 <= clock.waits_s(now) <= clock.cells_s(now) + 1e-9
        assert clock.cells_s(now) == pytest.approx(at_most)
