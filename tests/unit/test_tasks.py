"""A task file is read whole or refused with file, line and field."""

from pathlib import Path

import pytest

from common.errors import InputError
from common.messages import Task
from common.tasks import read_tasks, write_tasks

GOOD = '{"task_id": "a", "question": "Who?", "answers": ["Anna"]}'


def test_written_tasks_read_back_equal(tmp_path: Path) -> None:
    tasks = [
        Task(task_id="1", question="Où est\u2028Zürich?", answers=("Zürich", "ZH")),
        Task(task_id="2", question="Who?", answers=("A",), corpus="heldout", labels={"k": "v"}),
    ]
    path = tmp_path / "tasks.jsonl"

    write_tasks(tasks, path)

    assert read_tasks(path) == tasks


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
    ],
)
def test_a_mistake_names_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")

    with pytest.raises(InputError, match=message) as caught:
        read_tasks(path)

    assert str(path) in str(caught.value)


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
