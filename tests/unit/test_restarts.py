"""Restarts under virtual time: so many in any hour, later each time, never of what cannot work."""

import random

import pytest

from actors.mending import MendedPart, Mending
from common.errors import MachineError
from common.restarts import BUDGET, FIRST_S, HOUR_S, LONGEST_S, RestartBook

SCHEDULES = 300


def test_no_hour_has_more_restarts_than_the_budget_whatever_happens() -> None:
    gave_up = 0
    for seed in range(SCHEDULES):
        chance, book, now = random.Random(seed), RestartBook(), 0.0
        starts: list[float] = []
        for _ in range(200):
            now += chance.choice((0.1, 5.0, 200.0, 1500.0, 4000.0)) * chance.random()
            wait_s = book.ended(now, has_worked=True)
            recent = [start for start in starts if now - start < HOUR_S]
            assert (wait_s is None) == (len(recent) >= BUDGET)
            gave_up += wait_s is None
            if wait_s is not None:
                assert wait_s == min(LONGEST_S, FIRST_S * 2 ** len(recent))
                now += wait_s
                starts.append(now)
                assert book.in_last_hour == len(recent) + 1
    assert gave_up > SCHEDULES


def test_what_never_worked_is_not_started_again() -> None:
    assert RestartBook().ended(5.0, has_worked=False) is None


def test_an_hour_without_an_end_begins_anew() -> None:
    book = RestartBook()
    waits = [book.ended(100.0, has_worked=True) for _ in range(BUDGET + 1)]

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, None]
    assert book.ended(100.0 + 32.0 + HOUR_S, has_worked=True) == FIRST_S


def test_a_part_of_an_actor_that_is_given_up_ends_it_once_with_its_last_cause() -> None:
    told: list[str] = []
    mending = Mending(told.append)
    given_up: list[MachineError | None] = []
    mending.on_given_up = lambda: given_up.append(mending.given_up)
    part = MendedPart("the part", mending)

    waits = [part.ended(f"died of {number}") for number in range(BUDGET)]
    for _ in range(2):
        with pytest.raises(MachineError, match=r"the part died of 6, after 6 restarts within"):
            part.ended("died of 6")

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert told[0] == (
        "the part died of 0; it is started again in 1 s (restart 1 of at most 6 in an hour)"
    )
    assert len(told) == BUDGET
    assert len(given_up) == 1
