"""An answer that no machine could evaluate is a wrong one, and the next is compared as ever."""

import os
from collections.abc import Iterator

import pytest

from actors.rewards.maths.process import Comparer
from actors.rewards.task_types import check_task, measure_answer
from common.errors import InputError
from common.wire.records import Task
from tests.process_tree import descendants

GOLD = (r"2\sqrt{3}",)


@pytest.fixture(scope="module")
def comparer() -> Iterator[Comparer]:
    made = Comparer(cpu_s=1.0)
    yield made
    made.close()


def test_a_process_is_started_when_a_formula_has_to_be_understood(comparer: Comparer) -> None:
    before = descendants(os.getpid())
    assert comparer.equal(r"$2\sqrt3$", GOLD)
    assert descendants(os.getpid()) == before

    assert comparer.equal(r"\sqrt{12}", GOLD)
    assert not comparer.equal(r"\sqrt{13}", GOLD)
    assert len(set(descendants(os.getpid())) - set(before)) == 1


NIGHTLY = pytest.mark.nightly


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^{9}}}",
        pytest.param("(10^{9})!", marks=NIGHTLY),
        pytest.param("((x+1)^{999})^{999} + y", marks=NIGHTLY),
        pytest.param(r"\sum_{k=1}^{10^{12}} \frac{1}{k^2}", marks=NIGHTLY),
        pytest.param("(" * 400 + "x" + ")" * 400, marks=NIGHTLY),
    ],
)
def test_a_bomb_is_a_wrong_answer(comparer: Comparer, bomb: str) -> None:
    assert not comparer.equal(bomb, GOLD)
    assert comparer.equal(r"\sqrt{12}", GOLD)


def test_a_task_is_measured_by_its_kind() -> None:
    task = Task(task_id="t", question="q", kind="math", answers=("5", r"x=\frac{1}{2}"))

    check_task(task)

    assert measure_answer(task, "0.5")["exact_match"] == 1.0
    assert measure_answer(task, "0.6")["exact_match"] == 0.0


@pytest.mark.parametrize("answers", [(), ("",), ("$$", "1" * 1001)])
def test_a_task_without_a_gold_value_is_refused(answers: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="kind 'math'"):
        check_task(Task(task_id="t", question="q", kind="math", answers=answers))
