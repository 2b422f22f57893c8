"""Dates are equal in every order and form; what is no date is never taken for one."""

import datetime
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rewards.answers import contains, exact_match, f1
from actors.rewards.dates import CalendarDate, parse_date, same_date
from actors.rewards.task_types import measure_answer, task_type
from common.wire.records import Task

DAYS = st.dates(datetime.date(1000, 1, 1))
FORMS = (
    "{0.day} {0:%B} {0.year}", "{0:%B} {0.day}, {0.year}", "{0.year}-{0:%m}-{0:%d}",
    "{0.day}. {0:%b}. {0.year}", "the {0.day}th of {0:%B}, {0.year}", "{0.year}/{0.month}/{0.day}",
    "{0:%m}/{0:%d}/{0.year}", "{0.day}.{0.month}.{0.year}", "{0:%A}, {0:%B} {0.day} {0.year}.",
    "on {0:%b} {0.day}th {0.year}", "{0.day}-{0:%b}-{0.year}", "{0.year} {0:%B} {0.day}",
    "{0:%a}, {0.day} {0:%b} {0.year}",
)  # fmt: skip


@settings(deadline=None)
@given(DAYS, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_a_day_is_the_same_in_every_form(day: datetime.date, form: str, other: str) -> None:
    one, same = form.format(day), other.format(day)

    assert parse_date(one) == CalendarDate(year=day.year, month=day.month, day=day.day)
    assert exact_match(one, [same]) == f1(one, [same]) == contains(one, [same]) == 1.0


@settings(deadline=None)
@given(DAYS, DAYS, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_other_days_differ_in_every_form(
    day: datetime.date, other: datetime.date, form: str, second: str
) -> None:
    assert same_date(form.format(day), second.format(other)) == (day == other)


@pytest.mark.parametrize(
    ("text", "year", "month", "day"),
    [
        ("March 1990", 1990, 3, None),
        ("Mar. of 1990", 1990, 3, None),
        ("1990-03", 1990, 3, None),
        ("03/1990", 1990, 3, None),
        ("in May 1990", 1990, 5, None),
        ("1990", 1990, None, None),
        ("in 1990", 1990, None, None),
        ("AD 79", 79, None, None),
        ("79 A.D.", 79, None, None),
        ("44 B.C.", -44, None, None),
        ("15 March 44 BC", -44, 3, 15),
        ("December 25, 800", 800, 12, 25),
        ("May 12", None, 5, 12),
        ("the 12th of May", None, 5, 12),
        ("Feb 29", None, 2, 29),
        ("29 February 2000", 2000, 2, 29),
        ("29 February 1500", 1500, 2, 29),
        ("03/04/1990", 1990, 3, 4),
        ("03-04-1990", 1990, 3, 4),
        ("13/04/1990", 1990, 4, 13),
        ("03.04.1990", 1990, 4, 3),
        ("04.13.1990", 1990, 4, 13),
        ("٣ March ١٩٩٠", 1990, 3, 3),
    ],
)
def test_a_date_is_read(text: str, year: int | None, month: int | None, day: int | None) -> None:
    assert parse_date(text) == CalendarDate(year=year, month=month, day=day)


@pytest.mark.parametrize(
    "text",
    [
        "", "may", "May", "12", "790", "March", "Sunday", "3/3", "3-4", "1990s", "spring 1990",
        "2001-05", "1990-91", "3-5 March 1990", "March 3 90", "03/04/90", "about 1990", "0 BC",
        "30 February 1990", "29 Feb 1900", "13/13/1990", "1990-03/03", "1,990", "19900303",
        "May the 4th be with you", "Mayor 1990", "3 March 1990, London", "1990 or 1991", "on 12",
        "Sun 1990", "Monday March 1990",
    ],
)  # fmt: skip
def test_anything_else_is_no_date(text: str) -> None:
    assert parse_date(text) is None


@settings(deadline=None)
@given(st.text(max_size=80) | st.text("0123456789-/. adbcmarchyof,", max_size=70))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    found = parse_date(text)

    assert found is None or found.year is not None or found.day is not None


def test_a_date_that_says_less_is_another_one() -> None:
    forms = ["3 March 1990", "March 1990", "1990", "March 3"]

    assert [[same_date(one, other) for other in forms] for one in forms] == [
        [one == other for other in forms] for one in forms
    ]


@pytest.mark.parametrize("piece", ["1", "may ", "1-", ". ", "the ", "a d "])
def test_no_date_takes_long(piece: str) -> None:
    began = time.process_time()

    for cut in range(200):
        parse_date((piece * 60)[:50] + str(cut))
        parse_date((piece * 60)[: cut % 60])

    assert time.process_time() - began < 0.5


def date(*answers: str) -> Task:
    return Task(task_id="t", question="When?", kind="date", answers=answers)


def test_the_kind_date_takes_the_same_date_and_nothing_else() -> None:
    task = date("3 March 1990", "soon")

    assert measure_answer(task, "1990-03-03")["exact_match"] == 1.0
    assert measure_answer(task, "1990")["exact_match"] == 0.0
    assert measure_answer(task, "soon")["exact_match"] == 0.0
    assert measure_answer(task, None)["exact_match"] == 0.0


def test_a_task_without_any_date_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gold answer 'May' is not a date such as 3 March 1990"):
        task_type("date").check(date("May", "12"))
    with pytest.raises(ValueError, match="needs at least one gold answer"):
        task_type("date").check(date())
    task_type("date").check(date("May", "12 May"))
