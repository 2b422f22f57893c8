"""Text and JSON from people are read, or refused with file, line and field; never a traceback."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.tools.search.corpus import read_pages
from common.errors import InputError
from common.json_input import numbered_lines, parse_json, read_text, surrogate_in
from common.tasks import read_tasks
from launch.data.convert import convert

TASK = '{"task_id": "a", "question": "Who?", "answers": ["Anna"]}'
PAGE = '{"title": "Moon", "text": "Far."}'
NQ = '{"id": 0, "question": "Who?", "answer": ["Anna"]}'

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "tasks": (TASK, read_tasks),
    "corpus": (PAGE, lambda file: list(read_pages([file]))),
    "questions": (NQ, lambda file: converted(file, "x.jsonl", file)),
    "passages": (PAGE, lambda file: converted(file, file.name, None)),
}


def converted(file: Path, corpus: str, questions: Path | None) -> bytes:
    """What a converter makes of a file that is the questions, or else the corpus."""
    folder = file.parent
    (folder / "x.jsonl").write_text(PAGE)
    (folder / "q.jsonl").write_text(NQ)
    out = folder / "out"
    convert(questions or folder / "q.jsonl", corpus=folder / corpus, out=out)
    return (out / "tasks.jsonl").read_bytes() + (out / "corpus.jsonl").read_bytes()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "around",
    [
        "\ufeff{}\n",
        "\n\n  \t\n{}\n\n",
        "{}\r\n\r\n",
        "\ufeff\r\n\ufeff{}",
        "{}",
    ],
    ids=["byte order mark", "blank lines", "carriage returns", "all of it", "no line end"],
)
def test_every_reader_takes_marks_and_blank_lines_alike(
    tmp_path: Path, reader: str, around: str
) -> None:
    line, read = READERS[reader]
    (tmp_path / "plain.jsonl").write_text(line)
    (tmp_path / "file.jsonl").write_bytes(around.format(line).encode())

    assert read(tmp_path / "file.jsonl") == read(tmp_path / "plain.jsonl")


HARD = [
    ("[" * 100_000, "brackets are nested too deeply"),
    ('{"title": ' + "1" * 5000 + "}", "a number of 5000 digits; write it as a string"),
    ('{"title": NaN}', "NaN is no JSON; write null"),
    ('{"title": -Infinity}', "-Infinity is no JSON"),
    ('{"title": 1e999}', "the number 1e999 is too large"),
    ('{"title": "a", "text": "b", "title": "c"}', "field 'title' occurs twice"),
    ('{"title": ', r"not valid JSON: Expecting value \(column 10\)"),
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("line", "message"), HARD, ids=[message for _, message in HARD])
def test_every_reader_names_the_line_of_what_is_no_json(
    tmp_path: Path, reader: str, line: str, message: str
) -> None:
    good, read = READERS[reader]
    (tmp_path / "file.jsonl").write_text(f"{good}\n\n{line}\n")

    with pytest.raises(InputError, match=rf"file.jsonl'?,? line 3: .*{message}"):
        read(tmp_path / "file.jsonl")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n\xe9\n", "file.jsonl, line 2 is not UTF-8"),
        ("{}".encode("utf-16"), "line 1 is not UTF-8: .*it looks like UTF-16; save it as UTF-8"),
    ],
)
def test_every_reader_names_the_line_of_what_is_no_utf_8(
    tmp_path: Path, reader: str, data: bytes, message: str
) -> None:
    (tmp_path / "file.jsonl").write_bytes(data)

    with pytest.raises(InputError, match=message):
        READERS[reader][1](tmp_path / "file.jsonl")


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_what_is_no_file(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    read = READERS[reader][1]

    with pytest.raises(InputError, match=r"gone.jsonl does not exist"):
        read(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"fifo.jsonl is not a file"):
        read(tmp_path / "fifo.jsonl")


def test_half_a_surrogate_pair_is_refused_with_its_field_or_replaced() -> None:
    text = r'{"a": {"b": ["\ud83d\ude00", "\ud83d?"]}, "c": "\\ud83d"}'

    with pytest.raises(InputError, match=r"here: field 'a.b\[1\]' holds half of a surrogate pair"):
        parse_json(text, "here")

    assert parse_json(text, "here", replace_surrogates=True) == {
        "a": {"b": ["😀", "??"]}, "c": r"\ud83d",
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_reads_back_or_holds_half_a_surrogate_pair(value: Any) -> None:
    text = json.dumps(value)
    if surrogate_in(value) is None:
        assert parse_json(text, "here") == value
    else:
        with pytest.raises(InputError):
            parse_json(text, "here")
        json.dumps(parse_json(text, "here", replace_surrogates=True), ensure_ascii=False).encode()


@settings(deadline=None)  # it writes files
@given(st.binary(max_size=60))
def test_no_bytes_make_a_reader_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    file.write_bytes(data)

    for read in (read_tasks, lambda path: list(read_pages([path]))):
        with suppress(InputError):
            read(file)


def test_lines_keep_their_numbers_and_their_own_separators(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("\ufeff\n a\u2028b\r\n\n\ufeffc".encode())

    assert list(numbered_lines(tmp_path / "file", what="file")) == [(2, " a\u2028b\r\n"), (4, "c")]
    assert read_text(tmp_path / "file", what="file").startswith("\n a")
