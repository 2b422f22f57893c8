"""What is run for an answer that is a program, and what crosses between its two sandboxes."""

import json
import sys
import time
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from actors.rewards.programs.inside import Other, check, decoded, encoded
from actors.rewards.programs.program import check_program, program_of
from actors.rewards.task_types import check_task
from common.errors import InputError
from common.wire.records import Task

PROMPT = 'import math\n\n\ndef area(r):\n    """Of a circle."""\n'
TESTS = "def check(candidate):\n    assert math.isclose(candidate(1), math.pi)\n\ncheck(area)"


def task(*answers: str, **details: str) -> Task:
    given = {"tests": TESTS, "entry_point": "area", "prefix": PROMPT} | details
    return Task(task_id="t", question="q", kind="code", answers=answers, details=given)


def test_an_answer_without_the_function_completes_the_prefix() -> None:
    body = "    return math.pi * r**2\n"

    assert program_of(task(), body).answer == PROMPT + body


@pytest.mark.parametrize(
    "answer",
    [
        "def area(r):\n    return 3",
        "```python\ndef area(r):\n    return 3\n```",
        "Here it is:\n\n```\ndef area(r):\n    return 3\n```\nDone.",
        "Here it is:\n\n```python\ndef area(r):\n    return 3\n",
        "area = lambda r: 3",
    ],
)
def test_an_answer_with_the_function_stands_alone(answer: str) -> None:
    program = program_of(task(), answer)

    assert not program.answer.startswith(PROMPT)
    assert "area" in program.answer
    assert "```" not in program.answer
    assert (program.prefix, program.entry_point) == (PROMPT, "area")


def test_an_answer_of_nothing_but_open_fences_takes_no_longer_than_another() -> None:
    began = time.process_time()

    program_of(task(), "```x\n" * 12_800)

    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("details", "entry"),
    [
        ({"tests": "assert area(1) > 3"}, "area"),
        ({"tests": "import cmath\nassert [area(x) for x in (1,)] != cmath.e"}, "area"),
        ({"tests": "assert area(Point(1))"}, ""),
        ({"tests": "assert helper(area(1))"}, ""),
        ({"prefix": "def helper(x):\n    return x", "tests": "assert helper(area(1))"}, "area"),
        ({"entry_point": "volume", "tests": "assert volume(1)"}, "volume"),
    ],
)
def test_tests_run_apart_where_they_need_nothing_but_the_entry_point(
    details: dict[str, str], entry: str
) -> None:
    assert program_of(task(**details), "").entry_point == entry


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"tests": " "}, r"details\['tests'\] must hold the tests"),
        ({"tests": "assert ("}, "is not Python"),
        ({"entry_point": "a b"}, "must be a name, got 'a b'"),
        ({"timeout_s": "0"}, "above 0 and at most 30, got '0'"),
        ({"timeout_s": "soon"}, "got 'soon'"),
        ({"language": "C"}, "details has 'language'"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(details: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_task(task(**details))


def test_a_reference_has_to_be_one_program() -> None:
    check_program(task())
    check_program(task(PROMPT))
    with pytest.raises(ValueError, match="got 2"):
        check_program(task(PROMPT, PROMPT))
    with pytest.raises(ValueError, match="reference program in answers is not Python"):
        check_program(task("def ("))


@pytest.mark.parametrize("raised", ["StopIteration", "StopAsyncIteration", "AssertionError"])
def test_no_answer_ends_the_loop_that_tests_it(raised: str) -> None:
    tests = "for found in map(area, [1]):\n    assert found == 1"

    try:
        with pytest.raises(RuntimeError):
            check("", tests, "area", lambda _: json.dumps(["raised", raised, ""]), list)
    finally:
        sys.modules.pop("solution")


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        None, True, 5, -(10**4000), 2.5, float("inf"), 1 + 2j, "\ud83d é", b"\x00", bytearray(b"a"),
        [1, (2, {3}), [[]]], {"a": {1: [None]}, (1, 2): 3}, frozenset({1}), deque([1]), range(3),
        Decimal("0.10"), Fraction(1, 3), OrderedDict(a=1), Counter("aab"), Point(1, 2), "",
    ],
)  # fmt: skip
def test_plain_data_crosses(value: Any) -> None:
    assert decoded(json.loads(json.dumps(encoded(value)))) == value


def test_views_and_iterators_cross_as_what_they_hold() -> None:
    crossed = decoded(
        json.loads(json.dumps(encoded([iter([1, 2]), {"a": 1}.items(), map(str, [3])])))
    )

    assert [list(one) for one in crossed] == [[1, 2], [("a", 1)], ["3"]]


class AlwaysEqual(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Alike:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def test_what_an_answer_does_to_comparisons_stays_behind() -> None:
    number, other = decoded(encoded([AlwaysEqual(3), Alike()]))

    assert number != 4
    assert isinstance(other, Other)
    assert other != 4
    assert other
