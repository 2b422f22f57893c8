"""Published question sets become task and corpus files; a mistake names the question."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.tasks import read_tasks
from launch.cli import main
from launch.data.convert import Converted, convert

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
    "paragraphs": [
        {"title": "It", "paragraph_text": "Led by Kim.", "is_supporting": True},
        {"title": "Other", "paragraph_text": "Nothing.", "is_supporting": False},
    ],
}
NQ = {"question": "when was it", "answer": ["1972", "December 1972"]}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def pages(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]


def test_hotpotqa_brings_its_passages_and_names_the_supporting_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [HOTPOTQA])

    counts = convert(file, "hotpotqa", corpus=None, out=tmp_path / "out")

    (task,) = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert counts == Converted(tasks=1, pages=2)
    assert (task.task_id, task.answers) == ("h1", ("Ana Núñez",))
    assert json.loads(task.labels["supporting_titles"]) == ["Bären-Stadt", "Silent Harbor"]
    assert pages(tmp_path / "out")[0] == {"title": "Bären-Stadt", "text": "A town. It is old."}


def test_musique_keeps_every_alias_once(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [MUSIQUE])

    convert(file, "musique", corpus=None, out=tmp_path / "out")

    (task,) = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert task.answers == ("Kim", "Kim Lee")
    assert json.loads(task.labels["supporting_titles"]) == ["It"]


def test_nq_lines_take_a_corpus_of_titles_to_sentences(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(f"{json.dumps(NQ)}\n{json.dumps(NQ)}\n")
    corpus = write(tmp_path / "c.json", {"Moon": ["Far.", " Cold."], "Sun": ["Hot."]})

    counts = convert(file, "nq", corpus=corpus, out=tmp_path / "out")

    tasks = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert counts == Converted(tasks=2, pages=2)
    assert [task.task_id for task in tasks] == ["question-1", "question-2"]
    assert tasks[0].answers == ("1972", "December 1972")


@pytest.mark.parametrize("lines", [True, False])
def test_a_corpus_may_be_a_list_or_lines_of_pages(tmp_path: Path, lines: bool) -> None:
    file = write(tmp_path / "q.json", [NQ])
    page = {"title": "Moon", "text": "Far."}
    corpus = tmp_path / "corpus"
    corpus.write_text(json.dumps(page) + "\n" if lines else json.dumps([page]))

    convert(file, "nq", corpus=corpus, out=tmp_path / "out")

    assert pages(tmp_path / "out") == [page]


def test_a_repeated_question_is_taken_once(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [HOTPOTQA, HOTPOTQA])

    counts = convert(file, "hotpotqa", corpus=None, out=tmp_path / "out")

    assert counts == Converted(tasks=1, pages=2)


def test_gold_answers_that_nothing_could_match_are_left_out(tmp_path: Path) -> None:
    band = {**MUSIQUE, "id": "2hop__3", "answer": "...", "answer_aliases": []}
    alias = {**MUSIQUE, "answer_aliases": ["!"]}
    file = write(tmp_path / "q.json", [alias, band])

    counts = convert(file, "musique", corpus=None, out=tmp_path / "out")

    assert counts == Converted(tasks=1, pages=2, unscorable=1)
    assert [task.answers for task in read_tasks(tmp_path / "out" / "tasks.jsonl")] == [("Kim",)]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("hotpotqa", "[{]", r"q.json: not valid JSON"),
        ("hotpotqa", "[]", r"holds no questions"),
        ("hotpotqa", "[1]", r"record 1: expected a JSON object"),
        ("musique", json.dumps([{"id": "a"}]), r"question 1: field 'question' is missing"),
        ("nq", json.dumps([NQ, {**NQ, "question": 3}]), r"question 2: field 'question' must be"),
        ("nq", json.dumps([NQ]), r"carries no passages; name a corpus with --corpus"),
        ("nq", json.dumps([{**NQ, "answer": []}]), r"question 1: .*at least one non-empty"),
        ("nq", json.dumps([{**NQ, "answer": None}]), r"question 1: field 'answer' must be a list"),
        ("nq", json.dumps([{**NQ, "id": [1]}]), r"question 1: field 'id' must be a string or a nu"),
        (
            "hotpotqa",
            json.dumps([HOTPOTQA, {**HOTPOTQA, "supporting_facts": {"title": ["a"]}}]),
            r"question 2: field 'supporting_facts' must be a list, got {'title'",
        ),
        (
            "hotpotqa",
            json.dumps([{**HOTPOTQA, "supporting_facts": ["ab"]}]),
            r"question 1: field 'supporting_facts' must hold lists of two, got 'ab'",
        ),
        (
            "hotpotqa",
            json.dumps([{**HOTPOTQA, "context": None}]),
            r"question 1: field 'context' must be a list, got None",
        ),
        (
            "hotpotqa",
            json.dumps([{**HOTPOTQA, "context": {"title": ["a"], "sentences": [["b"]]}}]),
            r"question 1: field 'context' must be a list, got {'title'",
        ),
        (
            "hotpotqa",
            json.dumps([HOTPOTQA, {**HOTPOTQA, "context": [["Moon", 5]]}]),
            r"q.json, question 2: a page must be a text or a list of sentences, got 5",
        ),
        (
            "musique",
            json.dumps([MUSIQUE, {**MUSIQUE, "paragraphs": [{"title": "It"}]}]),
            r"question 2: field 'paragraph_text' is missing",
        ),
        (
            "musique",
            json.dumps([{**MUSIQUE, "paragraphs": ["It"]}]),
            r"question 1: field 'paragraphs' must hold objects, got 'It'",
        ),
        (
            "musique",
            json.dumps([{**MUSIQUE, "answer_aliases": None}]),
            r"question 1: field 'answer_aliases' must be a list, got None",
        ),
    ],
)
def test_a_mistake_names_the_question(
    tmp_path: Path, kind: str, content: str, message: str
) -> None:
    file = tmp_path / "q.json"
    file.write_text(content)

    with pytest.raises(InputError, match=message):
        convert(file, kind, corpus=None, out=tmp_path / "out")


def test_a_corpus_page_without_text_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [NQ])
    corpus = write(tmp_path / "c.json", [{"title": "Moon"}])

    with pytest.raises(InputError, match=r"c.json, page 1: expected strings 'title' and 'text'"):
        convert(file, "nq", corpus=corpus, out=tmp_path / "out")


def test_a_corpus_page_of_neither_text_nor_sentences_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [NQ])
    corpus = write(tmp_path / "c.json", {"Moon": ["Far."], "Sun": 5})

    with pytest.raises(InputError, match=r"c.json, page 'Sun': a page must be a text or a list"):
        convert(file, "nq", corpus=corpus, out=tmp_path / "out")


@pytest.mark.parametrize(("given", "kept"), [(0, "0"), ("", "question-1"), (None, "question-1")])
def test_an_id_is_kept_where_there_is_one(tmp_path: Path, given: object, kept: str) -> None:
    file = write(tmp_path / "q.json", [{**NQ, "id": given}])
    corpus = write(tmp_path / "c.json", {"Moon": ["Far."]})

    convert(file, "nq", corpus=corpus, out=tmp_path / "out")

    (task,) = read_tasks(tmp_path / "out" / "tasks.jsonl")
    assert task.task_id == kept


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [{**NQ, "question": "Who \ud83d?"}])
    corpus = write(tmp_path / "c.json", {"Moon\ud83d": ["Far."]})

    convert(file, "nq", corpus=corpus, out=tmp_path / "out")

    (task,) = read_tasks(tmp_path / "out" / "tasks.jsonl")
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
