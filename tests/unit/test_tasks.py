"""A task file is read whole or refused with file, line and field."""

import json
import os
from pathlib import Path

import pytest

from actors.rewards.task_types import check_task, unmatchable_answers
from common.errors import InputError
from common.task_rules import TaskRules, check_file
from common.tasks import read_tasks, write_tasks
from common.wire.records import Task
from launch.cli import main
from launch.data.task_check import room_of_model

MODEL = Path(__file__).resolve().parents[2] / "launch" / "presets" / "warmstart"
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
            '{"question": "Who?", "answer": "x"}',
            r"line 2: field 'task_id' is missing; .* lzero tasks convert",
        ),
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of tasks, a link out of it, a chain of links, and what is no file."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "secret.txt").write_text("key")
    (folder / "table.csv").write_text("a,b")
    (folder / "alias.csv").symlink_to("table.csv")
    (folder / "out.txt").symlink_to("../beside/secret.txt")
    (folder / "chain.txt").symlink_to("sub/chain.txt")
    (folder / "sub" / "chain.txt").symlink_to(folder / "out.txt")
    (folder / "loop").symlink_to("loop")
    (folder / "environ").symlink_to("/proc/self/environ")
    os.mkfifo(folder / "fifo")
    with (folder / "huge").open("wb") as file:
        file.truncate((64 << 20) + 1)
    return folder


def with_file(folder: Path, name: str) -> Path:
    record = {"task_id": "b", "question": "Who?", "answers": ["Anna"], "files": [name]}
    (folder / "tasks.jsonl").write_text(f"{GOOD}\n{json.dumps(record)}\n")
    return folder / "tasks.jsonl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", r"/etc/passwd leads to /etc/passwd; files of tasks must lie in the folder"),
        ("../beside/secret.txt", r"leads to .*/beside/secret.txt; files of tasks must lie"),
        ("sub/../../beside/secret.txt", r"leads to .*/beside/secret.txt; files of tasks must lie"),
        ("out.txt", r"leads to .*/beside/secret.txt; files of tasks must lie"),
        ("chain.txt", r"leads to .*/beside/secret.txt; files of tasks must lie"),
        ("/proc/self/environ", r"leads to /proc/\d+/environ; files of tasks must lie"),
        ("environ", r"leads to /proc/\d+/environ; files of tasks must lie"),
        ("/dev/zero", r"leads to /dev/zero; files of tasks must lie"),
        ("loop", r"cannot be read: "),
        ("fifo", r"/fifo is not a regular file"),
        ("sub", r"/sub is not a regular file"),
        ("", r"/data is not a regular file"),
        ("a\0b", r"cannot be read: .*null"),
        ("a" * 300, r"cannot be read: .*name too long"),
        ("huge", r"/huge has 67108865 bytes; the notebook's working folder holds 67108864"),
    ],
)
def test_a_file_that_no_task_may_bring_is_refused(data: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"tasks.jsonl, line 2: field 'files': .*{message}"):
        read_tasks(with_file(data, name))


def test_files_come_from_the_folders_that_the_configuration_names(data: Path) -> None:
    rules = TaskRules(folders=(data.parent / "beside",))

    for name in ("table.csv", "alias.csv", "chain.txt", str(data.parent / "beside/secret.txt")):
        (_, task) = read_tasks(with_file(data, name), rules=rules)
        assert Path(task.files[0]).name == Path(name).name
    with pytest.raises(InputError, match=r"allowed: .*/data, .*/beside\)"):
        read_tasks(with_file(data, "/etc/passwd"), rules=rules)


def test_not_even_a_task_file_at_the_root_brings_files_of_the_system() -> None:
    with pytest.raises(InputError, match="leads to /proc/"):
        check_file(Path("/proc/self/environ"), (Path("/"),), TaskRules())


@pytest.mark.parametrize("field", ["task_id", "question", "answers", "labels", "details"])
def test_half_a_surrogate_pair_is_refused_with_line_and_field(tmp_path: Path, field: str) -> None:
    odd = {"answers": ["Anna", "\ud83d"], "labels": {"k": "\ud83d"}, "details": {"\udc00": "v"}}
    record = {**json.loads(GOOD), field: odd.get(field, "who \ud83d?")}
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"\n{json.dumps(record)}\n")

    with pytest.raises(InputError, match=rf"line 2: field '{field}.*' holds half of a surrogate"):
        read_tasks(path)


def check(folder: Path, *options: str) -> int:
    return main(["tasks", "check", str(folder / "tasks.jsonl"), *options])


def test_tasks_check_says_what_is_hardly_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"task_id": "long", "question": "Why? " * 600, "answers": ["x1"]},
        {"task_id": "odd", "question": "Who?", "answers": ["Anna", "!?"]},
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "run.toml").write_text("[agent]\nmax_action_tokens = 64\n")
    odd = "warning: 1 tasks have a gold answer that nothing can match beside others: 'odd' ('!?')"
    long = "warning: 1 questions do not fit into the 448 tokens that the context of"

    assert check(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [odd]
    assert check(tmp_path, "--config", str(tmp_path / "run.toml")) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("tasks.jsonl: 2 tasks, no mistakes")
    assert said[1] == odd
    assert said[2].startswith(long)
    assert "'long' (" in said[2]
    assert check(tmp_path, "--model", str(MODEL)) == 0
    assert "tokens that the context of" in capsys.readouterr().out


def test_a_question_may_be_as_long_as_the_scaling_of_positions_allows(tmp_path: Path) -> None:
    config = json.loads((MODEL / "config.json").read_text())
    longest = config["max_position_embeddings"]
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": longest}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": yarn}))

    assert room_of_model(MODEL).tokens == longest
    assert room_of_model(tmp_path).tokens == 4 * longest


def test_tasks_check_refuses_a_corpus_that_there_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = GOOD.replace("}", ', "corpus": "wikipedia"}')
    (tmp_path / "tasks.jsonl").write_text(f"\n{line}\n")

    assert check(tmp_path) == 2
    assert (
        "line 2: field 'corpus': task 'a' names the corpus 'wikipedia'" in capsys.readouterr().err
    )


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
            '{"task_id": "b", "question": "Who?", "answers": ["!?", "..."]}',
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
        '{"task_id": "a", "question": "Who?", "answers": ["!?", "Anna", "", "The The", "A"]}\n'
        '{"task_id": "b", "question": "How many?", "kind": "number", "answers": ["few", "3"]}\n'
    )

    words, number = read_tasks(path, check=check_task)

    assert unmatchable_answers(words) == ["!?", ""]
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


def test_a_check_that_fails_does_not_say_before_that_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"task_id": "a", "question": "Who?", "answers": ["x"]}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))

    assert check(tmp_path, "--model", str(tmp_path)) == 2
    said = capsys.readouterr()
    assert "has no config.json" in said.err
    assert said.out == ""
