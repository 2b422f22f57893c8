"""A task file is read whole or refused with file, line and field."""

from pathlib import Path

import pytest

from actors.rewards.task_types import check_task, unmatchable_answers
from common.errors import InputError
from common.messages import Task
from common.task_rules import TaskRules
from common.tasks import read_tasks, write_tasks

GOOD = '{"task_id": "a", "question": "Who?", "answers": ["Anna"]}'


def test_written_tasks_read_back_equal(tmp_path: Path) -> None:
    tasks = [
        Task(task_id="1", question="Où est\u2028Zürich?", answers=("Zürich", "ZH")),
        Task(task_id="2", question="Who?", answers=("A",), corpus="heldout", labels={"k": "v"}),
        Task(
            task_id="3",
            question="How many?",
            kind="package.module:name",
            files=(str(tmp_path / "table.csv"),),
            details={"tests": "assert True"},
        ),
    ]
    (tmp_path / "table.csv").write_text("a,b")
    path = tmp_path / "tasks.jsonl"

    write_tasks(tasks, path)

    rules = TaskRules(kinds=frozenset({"package.module:name"}))
    assert read_tasks(path, rules=rules) == tasks


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nope", r"line 2: not valid JSON"),
        ("[1, 2]", r"line 2: expected a JSON object, got \[1, 2\]"),
        ('{"task_id": "b", "question": "Who?"}', r"line 2: field 'answers' is missing"),
        (
            '{"task_id": "b", "question": "Who?", "answer": ["x"]}',
            r"line 2: unknown field 'answer'; did you mean 'answers'\?",
        ),
        (
            '{"task_id": "b", "question": "Who?", "answers": "x"}',
            r"line 2: field 'answers' must be a list of strings, got \"x\"",
        ),
        (
            '{"task_id": "b", "question": "Who?", "answers": []}',
            r"line 2: task 'b': answers must hold at least one non-empty string",
        ),
        (
            '{"task_id": "b", "question": 7, "answers": ["x"]}',
            r"line 2: field 'question' must be a string, got 7",
        ),
        (
            '{"task_id": "b", "question": "Who?", "answers": ["x"], "labels": {"n": 1}}',
            r"line 2: field 'labels' must be an object of strings",
        ),
        (GOOD, r"line 2: task_id 'a' is already used on line 1"),
        (
            '{"task_id": "b", "question": "Who?", "answers": ["x"], "details": ["n"]}',
            r"line 2: field 'details' must be an object of strings, got \[\"n\"\]",
        ),
        (
            '{"task_id": "b", "question": "Who?", "answers": ["x"], "files": ["gone.csv"]}',
            r"line 2: field 'files': .*gone.csv does not exist \(a relative path starts from",
        ),
        (
            '{"task_id": "b", "question": "Who?", "kind": 3, "answers": ["x"]}',
            r"line 2: field 'kind' must be a string, got 3",
        ),
    ],
)
def test_a_mistake_names_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")

    with pytest.raises(InputError, match=message) as caught:
        read_tasks(path)

    assert str(path) in str(caught.value)


def test_files_of_a_task_are_found_beside_the_task_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "table.csv").write_text("a,b")
    line = GOOD.replace("}", ', "files": ["table.csv"]}')
    (folder / "tasks.jsonl").write_text(line)

    (task,) = read_tasks(folder / "tasks.jsonl")

    assert task.files == (str(folder / "table.csv"),)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.csv").write_text(name)
    line = GOOD.replace("}", ', "files": ["a/table.csv", "b/table.csv"]}')
    (tmp_path / "tasks.jsonl").write_text(line)

    with pytest.raises(InputError, match=r"two files are called 'table.csv'"):
        read_tasks(tmp_path / "tasks.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"task_id": "b", "question": "Who?", "answers": ["!?", "The The"]}',
            r"line 2: task 'b' of kind 'qa': no answer could match .*'!\?': they hold nothing but",
        ),
        (
            '{"task_id": "b", "question": "How many?", "kind": "number", "answers": ["many"]}',
            r"line 2: task 'b' of kind 'number': gold answer 'many' is not a number",
        ),
        (
            '{"task_id": "b", "question": "How many?", "kind": "number"}',
            r"line 2: task 'b' of kind 'number': a task of kind 'number' needs at least one",
        ),
        (
            '{"task_id": "b", "question": "?", "kind": "numbr", "answers": ["3"]}',
            r"line 2: kind: unknown task type 'numbr'; did you mean 'number'\?",
        ),
        (
            '{"task_id": "b", "question": "?", "kind": "no_such_package.m:t"}',
            r"line 2: tasks.kinds: cannot import 'no_such_package.m'",
        ),
    ],
)
def test_a_task_that_its_type_refuses_is_named_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")

    rules = TaskRules(kinds=frozenset({"no_such_package.m:t"}))
    with pytest.raises(InputError, match=message):
        read_tasks(path, rules=rules, check=check_task)


def test_a_gold_answer_that_nothing_can_match_is_no_mistake_beside_one_that_can(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        '{"task_id": "a", "question": "Who?", "answers": ["!?", "Anna", "", "The"]}\n'
        '{"task_id": "b", "question": "How many?", "kind": "number", "answers": ["few", "3"]}\n'
    )

    words, number = read_tasks(path, check=check_task)

    assert unmatchable_answers(words) == ["!?", "", "The"]
    assert unmatchable_answers(number) == ["few"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n\n")

    with pytest.raises(InputError, match=r"holds no tasks"):
        read_tasks(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match=r"is not UTF-8"):
        read_tasks(path)
