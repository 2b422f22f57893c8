"""Questions whose answers can be checked, and that a small model can learn within minutes."""

import random
from collections.abc import Iterator

from common.wire.records import Task

_FORMS = (
    "What is {a} + {b}?",
    "Add {a} and {b}.",
    "A jar holds {a} beans. {b} more are put in. How many beans are in it?",
    "Tom has {a} stamps and Eva has {b}. How many do they have together?",
)
_ENDING = " Answer with the number alone."
_LARGEST = 10


def addition_tasks(number: int, *, seed: int = 0) -> list[Task]:
    """Sums of two numbers up to 10, asked in several ways; no question occurs twice.

    Args:
        number: of tasks; at most 400.
        seed: another one gives other questions.
    """
    rng = random.Random(f"addition/{seed}")
    numbers = range(1, _LARGEST + 1)
    sums = [(form, a, b) for form in _FORMS for a in numbers for b in numbers]
    return list(_tasks(rng.sample(sums, number)))


def digit_tasks(number: int) -> list[Task]:
    """Any digit below a bound is right: a model without any knowledge is rewarded now and then."""
    return [
        Task(
            task_id=f"digit-{index}",
            question=f"A digit below {index % 6 + 5}, case {index}?",
            answers=tuple(map(str, range(index % 6 + 5))),
            kind="number",
        )
        for index in range(number)
    ]


def _tasks(sums: list[tuple[str, int, int]]) -> Iterator[Task]:
    for index, (form, a, b) in enumerate(sums):
        yield Task(
            task_id=f"sum-{index}",
            question=form.format(a=a, b=b) + _ENDING,
            answers=(str(a + b),),
            kind="number",
        )
