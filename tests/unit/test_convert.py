"""Question sets become task and corpus files; what is left out is said, a mistake is named."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from common.errors import InputError
from common.tasks import read_tasks
from common.wire.records import Task
from launch.cli import main
from launch.data.convert import NOTHING_SAID, Converted, Wanted, convert

HOTPOTQA = {
    "_id": "h1",
    "question": "Who wrote the novel set in Bären-Stadt?",
    "answer": "Ana Núñez",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Bären-Stadt", 0], ["Silent Harbor", 1], ["Silent Harbor", 0]],
    "context": [["Bären-Stadt", ["A town.", " It is old."]], ["Silent Harbor", ["A novel."]]],
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who leads it?",
    "answer": "Kim",
    "answer_aliases": ["Kim Lee", "Kim"],
    "answerable": True,
    "paragraphs": [
        {"title": "It", "paragraph_text": "Led by Kim.", "is_supporting": True},
        {"title": "Other", "paragraph_text": "Nothing.", "is_supporting": False},
    ],
}
NQ = {"question": "when was it", "answer": ["1972", "December 1972"]}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def converted(
    folder: Path, records: list[Any], wanted: Wanted = NOTHING_SAID, corpus: Path | None = None
) -> tuple[Converted, list[Task]]:
    file = write(folder / "q.json", records)
    done = convert(file, out=folder / "out", corpus=corpus, wanted=wanted)
    return done, read_tasks(folder / "out" / "tasks.jsonl")


def pages(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]


def test_own_passages_become_the_corpus_and_a_repeat_is_taken_once(tmp_path: Path) -> None:
    done, (task,) = converted(tmp_path, [HOTPOTQA, HOTPOTQA])

    assert (done.tasks, done.pages) == (1, 2)
    assert [one.reason for one in done.left_out] == ["repeated"]
    assert task.task_id == "hotpotqa-h1"
    assert pages(tmp_path / "out")[0] == {"title": "Bären-Stadt", "text": "A town. It is old."}


def test_without_passages_there_is_no_corpus_not_even_an_earlier_one(tmp_path: Path) -> None:
    converted(tmp_path, [HOTPOTQA])

    done, _ = converted(tmp_path, [NQ])

    assert done.pages == 0
    assert not (tmp_path / "out" / "corpus.jsonl").exists()


def test_no_file_that_is_read_or_not_from_an_earlier_conversion_is_lost(tmp_path: Path) -> None:
    file, corpus = write(tmp_path / "q.json", [NQ]), tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "Moon", "text": "Far."}\n')
    tasks = write(tmp_path / "tasks.jsonl", [NQ])

    for given in (file, tasks):
        with pytest.raises(InputError, match=r"is read, and --out .* would write over it"):
            convert(given, out=tmp_path, corpus=corpus)
    tasks.unlink()
    with pytest.raises(InputError, match=r"corpus\.jsonl would be replaced, and is not from"):
        convert(file, out=tmp_path)
    by_hand = '{"task_id": "q1", "question": "Who?", "answers": ["Bo"]}\n'
    tasks.write_text(by_hand)
    with pytest.raises(InputError, match=r"tasks\.jsonl would be replaced, and is not from"):
        convert(file, out=tmp_path)

    assert tasks.read_text() == by_hand
    assert pages(tmp_path) == [{"title": "Moon", "text": "Far."}]


def test_a_broken_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"title": "Moon", "text": "Far."}\n{"title": 5}\n')

    with pytest.raises(InputError, match=r"c\.jsonl, line 2: expected texts"):
        converted(tmp_path, [NQ], corpus=corpus)

    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("first", [0, 3])
def test_most_records_say_the_shape_wherever_an_odd_one_stands(tmp_path: Path, first: int) -> None:
    rows = [{"problem": f"p{n}", "answer": f"x^{n}", "url": "u"} for n in range(3)]
    rows.insert(first, {"problem": "p", "answer": "42", "url": "u"})

    done, tasks = converted(tmp_path, rows)

    assert (done.shape, {task.kind for task in tasks}) == ("math", {"math"})
    odd = {"question": "q", "supporting_facts": []}
    with pytest.raises(InputError, match="record 1: field 'answer' is missing; most records are"):
        converted(tmp_path, [odd, HOTPOTQA, HOTPOTQA])


def test_ids_stay_in_another_order_and_in_a_part_of_the_file(tmp_path: Path) -> None:
    rows = [{"question": f"who is {n}", "answer": [str(n)]} for n in range(4)]

    _, tasks = converted(tmp_path, rows)
    _, part = converted(tmp_path, [rows[3], rows[1]])

    ids = {task.question: task.task_id for task in tasks}
    assert all(task.task_id.startswith("nq-") for task in tasks)
    assert {task.question: task.task_id for task in part} == {
        name: ids[name] for name in ("who is 1", "who is 3")
    }


def test_an_id_of_two_questions_gets_the_hash_of_each(tmp_path: Path) -> None:
    other = {**HOTPOTQA, "question": "Who else?"}

    _, tasks = converted(tmp_path, [HOTPOTQA, other])

    assert len({task.task_id for task in tasks}) == 2
    assert all(task.task_id.startswith("hotpotqa-h1-") for task in tasks)


def test_gold_answers_and_questions_that_are_left_out_are_told_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alias = {**MUSIQUE, "answer_aliases": ["!", None]}
    none = {**MUSIQUE, "id": "2hop__3", "answer": "!", "answer_aliases": []}
    unanswerable = {**MUSIQUE, "id": "2hop__4", "answerable": False}
    file = write(tmp_path / "q.json", [alias, none, unanswerable])

    assert main(["tasks", "convert", str(file), "--out", str(tmp_path / "out")]) == 0

    said = capsys.readouterr().out
    assert "wrote 1 tasks (musique 1) and 2 pages" in said
    assert "1 without a usable gold answer: nothing but punctuation" in said
    assert "record 2)" in said
    assert "1 unanswerable (answerable is false) (first: " in said
    assert "1 nothing but punctuation (first: " in said
    assert "1 null (first: " in said
    assert [task.answers for task in read_tasks(tmp_path / "out" / "tasks.jsonl")] == [("Kim",)]


def test_a_file_of_which_no_question_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question is left: 1 unanswerable"):
        converted(tmp_path, [{**MUSIQUE, "answerable": False}])


def test_fields_of_ones_own_are_named_also_inside_of_others(tmp_path: Path) -> None:
    row = {"id": 7, "q": {"text": "What is half of it?"}, "gold": 0.5}
    wanted = Wanted(question="q.text", answer="gold", kind="number", source="halves")

    _, (task,) = converted(tmp_path, [row], wanted)

    assert (task.task_id, task.kind, task.answers) == ("halves-7", "number", ("0.5",))
    assert task.labels == {"source": "halves", "family": "halves"}


def test_every_form_of_file_gives_the_same_tasks(tmp_path: Path) -> None:
    rows = [{"id": f"t{n}", "question": f"who, {n}", "golden_answers": [str(n)]} for n in range(3)]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.jsonl").write_text(lines)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "d.json").write_text(json.dumps({"Version": 1, "Data": rows}, indent=1))
    (tmp_path / "e.json").write_text(json.dumps({"Version": 1, "Data": rows}))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    found = set()

    for file in sorted(tmp_path.glob("?.*")):
        convert(file, out=tmp_path / "out", wanted=Wanted(source="mine"))
        found.add((tmp_path / "out" / "tasks.jsonl").read_text())

    assert len(found) == 1
    assert [t.task_id for t in read_tasks(tmp_path / "out" / "tasks.jsonl")] == [
        "mine-t0", "mine-t1", "mine-t2",
    ]  # fmt: skip


def test_ids_of_a_column_with_an_empty_cell_are_whole_numbers(tmp_path: Path) -> None:
    rows = pyarrow.table({"id": [7.0, None], "question": ["a", "b"], "golden_answers": [["c"]] * 2})
    parquet.write_table(rows, tmp_path / "f.parquet")

    convert(tmp_path / "f.parquet", out=tmp_path / "out", wanted=Wanted(source="mine"))

    found = [task.task_id for task in read_tasks(tmp_path / "out" / "tasks.jsonl")]
    assert found[0] == "mine-7"


def test_a_process_that_read_parquet_ends_as_it_should(tmp_path: Path) -> None:
    file = tmp_path / "f.parquet"
    parquet.write_table(pyarrow.table({"question": ["a"], "answer": [["b"]]}), file)
    code = (
        "import sys; from pathlib import Path; from launch.data.sources.reading import "
        f"read_records; sys.exit(len(read_records(Path({str(file)!r}), what='file')))"
    )

    readers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]

    assert [reader.wait(60) for reader in readers] == [1] * 4


def test_a_field_of_a_table_may_hold_a_whole_page(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"Question,Answer\n{'Who? ' * 30_000},Bo\n")

    assert convert(tmp_path / "t.csv", out=tmp_path / "out").tasks == 1


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_are_read_with_quotes_and_line_ends_inside(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    file = tmp_path / f"t.{suffix}"
    with file.open("w", newline="") as opened:
        table = csv.writer(opened, delimiter=separator)
        table.writerow(["metadata", "problem", "answer"])
        table.writerow(["{'topic': 'Art', 'answer_type': 'Person'}", 'Who, "when"\nor\twhy?', "Bo"])

    convert(file, out=tmp_path / "out")

    (task,) = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert (task.question, task.answers) == ('Who, "when"\nor\twhy?', ("Bo",))
    assert task.labels == {
        "family": "one_hop", "source": "simpleqa", "topic": "Art", "type": "Person",
    }  # fmt: skip


def test_a_table_with_semicolons_is_read_and_commas_in_its_cells_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('Frage;Antwort\n"Wer, wann?";Bo\n')

    convert(tmp_path / "t.csv", out=tmp_path, wanted=Wanted(question="Frage", answer="Antwort"))

    (task,) = read_tasks(tmp_path / "tasks.jsonl")
    assert (task.question, task.answers) == ("Wer, wann?", ("Bo",))


def test_the_command_says_which_fields_were_read_and_that_there_is_no_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "q.json", [{"q": "Who?", "a": "Bo"}])

    own = ["--question", "q", "--answer", "a", "--out", str(tmp_path / "out")]
    assert main(["tasks", "convert", str(file), *own]) == 0

    said = capsys.readouterr().out
    assert "q.json asks in field 'q' and answers in field 'a'" in said
    assert "wrote 1 tasks (own 1) and no pages (there is no corpus) to" in said


def test_a_task_file_needs_no_conversion(tmp_path: Path) -> None:
    converted(tmp_path, [NQ])

    with pytest.raises(InputError, match=r"is a task file already.* lzero tasks check"):
        convert(tmp_path / "out" / "tasks.jsonl", out=tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.json", b"[{]", r"q.json: not valid JSON"),
        ("q.json", b"[]", r"holds no questions"),
        ("q.json", b"", r"holds no questions"),
        ("q.json", b"[1]", r"record 1: expected a JSON object"),
        ("q.jsonl", b'{"question": "a", "answer": ["b"]}\n{"question"', r"line 2: not valid JSON"),
        ("q.jsonl", b'{"question": "a", "answer": [NaN]}', r"line 1: .*NaN is no JSON"),
        ("q.gz", b"\x1f\x8b\x08", r"no whole gzip file"),
        ("q.parquet", b"PAR1 and nothing else", r"no readable parquet file"),
        ("q.csv", b"Question,Answer\nWho?\n", r"record 1: it has not as many fields as the head"),
        ("q.csv", b'Question,Answer\n"Who?,a\n', r"line \d: not valid CSV"),
        ("q.csv", b"Question,Answer,Answer\nWho?,a,b\n", r"field 'Answer' occurs twice"),
        ("q.txt", b"Who? Anna", r"neither JSON, JSON lines nor parquet.*begins with 'Who\? Anna'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        convert(tmp_path / name, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([NQ, {**NQ, "question": 3}], r"record 2: field 'question' must be a text, got 3"),
        ([NQ, {**NQ, "answer": [["a"]]}], r"record 2: field 'answer' must hold texts or numbers"),
        ([NQ, {**NQ, "answer": [True]}], r"record 2: field 'answer' must hold .*, got True"),
        ([NQ, {**NQ, "answer": {"b": 1}}], r"record 2: field 'answer' must hold .*, got {'b'"),
        ([NQ, {"question": "a"}], r"record 2: field 'answer' is missing; .* shape nq"),
        ([{**NQ, "id": [1]}], r"record 1: field 'id' must be a text or a whole number"),
        ([{**HOTPOTQA, "supporting_facts": {"title": ["a"]}}], r"two lists of one length"),
        ([{**HOTPOTQA, "supporting_facts": ["ab"]}], r"must hold lists of two, got \['ab'"),
        ([{**HOTPOTQA, "context": [["Moon", 5]]}], r"a page must be a text or a list of sent"),
        ([MUSIQUE, {**MUSIQUE, "paragraphs": [{"title": "It"}]}], r"record 2: field 'paragraph_t"),
        ([{**MUSIQUE, "paragraphs": ["It"]}], r"must hold objects, got 'It'"),
        ([{"question": "a", "answer": "b"}], r"no known shape; .*\n  question \(text\), answer \("),
    ],
)
def test_a_record_that_is_not_as_it_must_be_is_named(
    tmp_path: Path, records: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        converted(tmp_path, records)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(shape="gsm8k"), r"not of the shape gsm8k .*question \(text\).*looks like nq"),
        (Wanted(shape="hotpot"), r"--format must be one of .*hotpotqa.*, got 'hotpot'"),
        (Wanted(question="question"), r"--question and --answer go together"),
        (Wanted(question="q", answer="answer"), r"record 1: field 'q' is missing; there are: que"),
        (Wanted(kind="code"), r"--kind must be one of qa, number"),
        (Wanted(shape="nq", question="a", answer="b"), r"--format names a known shape"),
    ],
)
def test_what_a_person_says_must_fit_the_file(tmp_path: Path, wanted: Wanted, message: str) -> None:
    with pytest.raises(InputError, match=message):
        converted(tmp_path, [NQ], wanted)


PAGE = {"title": "Moon", "text": "Far."}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(PAGE) + "\n",
        json.dumps([PAGE]),
        json.dumps({"Moon": ["Fa", "r."]}),
        json.dumps({"id": 1, "contents": '"Moon"\nFar.'}),
        json.dumps({"title": "Moon", "paragraph_text": "Far."}),
    ],
)
def test_a_corpus_may_be_written_in_several_ways(tmp_path: Path, content: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.write_text(content)

    converted(tmp_path, [NQ], corpus=corpus)

    assert pages(tmp_path / "out") == [PAGE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"title": "Moon"}], r"c.json, record 1: expected texts 'title' and 'text'"),
        ({"Moon": ["Far."], "Sun": 5}, r"c.json, page 'Sun': a page must be a text or a list"),
    ],
)
def test_a_corpus_page_that_is_none_is_named(tmp_path: Path, content: Any, message: str) -> None:
    corpus = write(tmp_path / "c.json", content)

    with pytest.raises(InputError, match=message):
        converted(tmp_path, [NQ], corpus=corpus)


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.json", {"Moon\ud83d": ["Far."]})

    _, (task,) = converted(tmp_path, [{**NQ, "question": "Who \ud83d?"}], corpus=corpus)

    assert (task.question, pages(tmp_path / "out")[0]["title"]) == ("Who ??", "Moon?")


def test_a_result_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "q.json", [HOTPOTQA])
    out = file / "out"

    assert main(["tasks", "convert", str(file), "--format", "hotpotqa", "--out", str(out)]) == 2
    assert f"lzero: {out} cannot be written: " in capsys.readouterr().err
    assert main(["tasks", "index", str(file), str(out)]) == 2
    assert f"lzero: search index '{out}' cannot be written: " in capsys.readouterr().err
