import pytest

from common.wire.records import Step, Task
from launch.data.world.strategies import Strategy, strategies

TASK = Task(task_id="t", question="Where was the author of Silent Harbor born?", answers=("x",))
PAGE = "Silent Harbor, novel by Anna Keller, published in 1958."


def step(code: str | None, observation: str = "") -> Step:
    return Step(action="", code=code, observation=observation)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Silent Harbor novel", Strategy.NAME_AND_TOPIC),
        ("Silent Harbor", Strategy.BARE_NAME),
        ("where was the author of Silent Harbor born", Strategy.WHOLE_QUESTION),
        ("Harbor", Strategy.ONE_WORD),
        ("novel by somebody", Strategy.OTHER_SEARCH),
    ],
)
def test_a_search_is_named_by_its_query(query: str, expected: Strategy) -> None:
    assert strategies(TASK, [step(f'print(search("{query}"))')]) == {expected: 1}


def test_a_query_that_is_computed_is_another_search() -> None:
    assert strategies(TASK, [step("q = 'a'\nprint(search(q + 'b'))")]) == {Strategy.OTHER_SEARCH: 1}


def test_searching_a_name_that_was_read_is_chaining() -> None:
    steps = [
        step('print(search("Silent Harbor novel"))', PAGE),
        step('print(search("Anna Keller born"))', "Anna Keller, poet, born in Port Alden in 1931."),
        step('submit_final_answer("Port Alden")'),
    ]
    assert strategies(TASK, steps) == {
        Strategy.NAME_AND_TOPIC: 2,
        Strategy.CHAINED: 1,
        Strategy.SUBMITTED_VALUE: 1,
    }


def test_a_name_nobody_printed_is_not_chained() -> None:
    assert Strategy.CHAINED not in strategies(TASK, [step('print(search("Anna Keller born"))')])


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("1958 - 1931", Strategy.COMPUTED),
        ('"Port Alden"', Strategy.SUBMITTED_VALUE),
        ("1931", Strategy.SUBMITTED_VALUE),
        ("town", Strategy.SUBMITTED_VALUE),
        (f'"{PAGE}"', Strategy.SUBMITTED_SENTENCE),
        ('"unknown"', Strategy.SUBMITTED_UNKNOWN),
    ],
)
def test_an_answer_is_named_by_its_form(argument: str, expected: Strategy) -> None:
    code = f"submit_final_answer({argument})"
    searched = strategies(TASK, [step('search("Harbor")'), step(code)])
    guessed = strategies(TASK, [step(code)])
    assert searched == {Strategy.ONE_WORD: 1, expected: 1}
    assert guessed == {Strategy.GUESSED: 1, expected: 1}


def test_other_code_and_text_that_is_no_action_are_counted() -> None:
    steps = [step('print("x")'), step("print(("), step(None)]
    assert strategies(TASK, steps) == {Strategy.PRINTED: 2, Strategy.UNPARSABLE: 1}
