"""A task's type asks and measures; what a user's type does wrong is named."""

import sys
from pathlib import Path

import pytest

from actors.rewards.task_types import asked_question, check_task, measure_answer, task_type
from common.errors import ConfigError, InputError, PluginError
from common.wire.records import Task

MODULE = "task_types_for_test"
SOURCE = """
from actors.rewards.task_types import TaskType


class Spelling(TaskType):
    measures = ("exact_match", "length")

    def question(self, task):
        return "Spell backwards: " + task.question

    def check(self, task):
        if not task.details["word"].isalpha():
            raise ValueError("details['word'] must be letters")

    def measure(self, task, answer):
        return {"exact_match": float(answer == task.details["word"][::-1]), "length": len(answer)}


class Bad(TaskType):
    measures = ("exact_match",)
    returned = None

    def question(self, task):
        return task.details["question"]

    def measure(self, task, answer):
        return self.returned


class Nan(Bad):
    returned = {"exact_match": float("nan")}

class Big(Bad):
    returned = {"exact_match": 2.0}

class Text(Bad):
    returned = {"exact_match": "1"}

class Other(Bad):
    returned = {"accuracy": 1.0}

class Unmeasured(TaskType):
    def measure(self, task, answer):
        return {}

class Blank(Bad):
    def question(self, task):
        return "  "

class Needy(Bad):
    def __init__(self, path):
        pass

class Broken(TaskType):
    measures = ("exact_match",)

    def measure(self, task, answer):
        return {"exact_match": half(len(answer))}

def half(n):
    return 1 / (n - n)

class Truth(TaskType):
    measures = ("exact_match",)

    def measure(self, task, answer):
        return {"exact_match": answer == "right"}

def function(task):
    return 1.0
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(MODULE, None)
    task_type.cache_clear()


def task(kind: str, **details: str) -> Task:
    return Task(task_id="t", question="lead", kind=f"{MODULE}:{kind}", details=details)


def test_a_type_of_ones_own_asks_checks_and_measures() -> None:
    spelling = task("Spelling", word="lead")

    check_task(spelling)

    assert asked_question(spelling) == "Spell backwards: lead"
    assert measure_answer(spelling, "dael") == {
        "exact_match": 1.0, "f1": 1.0, "contains": 1.0, "length": 4,
    }  # fmt: skip
    assert set(measure_answer(spelling, None).values()) == {0.0}


@pytest.mark.parametrize(("answer", "exact"), [("right", 1.0), ("wrong", 0.0)])
def test_true_and_false_are_numbers(answer: str, exact: float) -> None:
    measured = measure_answer(task("Truth"), answer)

    assert {type(value) for value in measured.values()} == {float}
    assert set(measured.values()) == {exact}


def test_a_built_in_type_asks_the_question_as_it_is() -> None:
    assert asked_question(Task(task_id="t", question="Who?", answers=("A",))) == "Who?"


def test_what_a_type_refuses_is_an_input_error_with_the_task() -> None:
    with pytest.raises(InputError, match=r"task 't' of kind '.*:Spelling': details\['word'\] must"):
        check_task(task("Spelling", word="l3ad"))
    with pytest.raises(InputError, match=r"task 't' of kind '.*:Spelling': KeyError: 'word'"):
        check_task(task("Spelling"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Nan", r"measure must return a finite number for 'exact_match', got nan, which is not "),
        ("Big", r"measure must return exact_match in \[0, 1\], got 2.0"),
        ("Text", r"measure must return a finite number for 'exact_match', got '1', which is no n"),
        ("Other", r"measure must return \['exact_match'\], got \['accuracy'\]"),
        (
            "Bad",
            rf"measure must return a dict of \['exact_match'\], got None \(.*{MODULE}.py, line",
        ),
        ("Broken", rf"measure raised ZeroDivisionError: .* \(.*{MODULE}.py, line 61, in half\)"),
    ],
)
def test_a_wrong_measurement_is_named(kind: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"kind '{MODULE}:{kind}' of task 't': {message}"):
        measure_answer(task(kind), "x")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Blank", r"question must return a text that is not empty, got '  '"),
        ("Bad", r"question raised KeyError: 'question'"),
    ],
)
def test_a_wrong_question_is_named(kind: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"kind '{MODULE}:{kind}' of task 't': {message}"):
        asked_question(task(kind))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (f"{MODULE}:Speling", r"has no 'Speling'; did you mean 'Spelling'\?"),
        (f"{MODULE}:function", r"has no method 'question'"),
        (f"{MODULE}:Unmeasured", r"needs measures, a tuple of names with 'exact_match'"),
        (f"{MODULE}:Needy", r"cannot be made without arguments: TypeError"),
        ("qaa", r"unknown task type 'qaa'; did you mean 'qa'\?"),
        ("essay", r"known kinds: qa, number.*\. One of your own is written"),
        ("a b:c", r"'a b:c' must be written package.module:name"),
    ],
)
def test_what_is_no_task_type_is_named(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_type(kind)
