"""Restarts under virtual time: so many in any hour, later each time, never of what cannot work."""

import random

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
