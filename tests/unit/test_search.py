import json
import sqlite3
from pathlib import Path

import pytest

from actors.tools.search import NO_RESULTS, SearchIndex, build_index
from common.errors import InputError

PAGES = [
    ("Ada Lovelace", "Ada Lovelace, mathematician, born in London in 1815."),
    ("Notes", "Notes by Ada Lovelace."),
    ("São Paulo", "A city in Brazil, home of Zoë O'Brien."),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"title": title, "text": text}) for title, text in PAGES]
    corpus.write_text("\n".join([*lines, ""]))
    assert build_index(corpus, tmp_path / "index.sqlite") == 3
    return tmp_path / "index.sqlite"


def test_all_words_must_match_and_the_shorter_page_ranks_first(database: Path) -> None:
    index = SearchIndex(database)
    assert index.search("Ada Lovelace") == PAGES[1][1]
    assert index.search("ada lovelace BORN?") == PAGES[0][1]
    assert index.search("Ada Lovelace composer") == NO_RESULTS


def test_any_word_matches_when_asked(database: Path) -> None:
    assert SearchIndex(database, match="any").search("born yesterday") == PAGES[0][1]


def test_a_page_without_its_title_gets_it_as_first_line(database: Path) -> None:
    assert SearchIndex(database).search("sao paulo brazil") == "São Paulo\n" + PAGES[2][1]


def test_several_results_come_best_first_and_cut_to_length(database: Path) -> None:
    index = SearchIndex(database, results=2, max_characters=10)
    assert index.search("lovelace") == "Notes by A\n\nAda Lovela"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "  ",
        '"',
        "AND",
        "a OR",
        "NEAR(",
        "text:x*",
        "^'--;",
        "\0",
        "\ud800",
        "(" * 500,
        "x" * 9999,
    ],
)
def test_any_string_is_a_safe_query(database: Path, query: str) -> None:
    assert SearchIndex(database).search(query) == NO_RESULTS


@pytest.mark.parametrize("query", ["zoe o'brien", "ZOË O’BRIEN", "Zoe\u0308 brien", '"zoë"'])
def test_accents_case_and_punctuation_do_not_matter(database: Path, query: str) -> None:
    assert SearchIndex(database).search(query).startswith("São Paulo")


def test_the_index_is_opened_read_only(database: Path) -> None:
    before = database.read_bytes()
    index = SearchIndex(database)
    index.search("ada")
    index.close()
    assert database.read_bytes() == before
    assert [p.name for p in database.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "JSON object"),
        ("[]", "got list"),
        ('{"title": "x"}', "'text'"),
        ('{"title": "", "text": "x"}', "'title'"),
        ('{"title": "x", "text": 3}', "'text'"),
    ],
)
def test_a_malformed_corpus_is_named_with_its_line(
    tmp_path: Path, line: str, expected: str
) -> None:
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text('{"title": "a", "text": "a b"}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"bad\.jsonl' line 2.*{expected}"):
        build_index(corpus, tmp_path / "index.sqlite")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.jsonl"]


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "text.sqlite").write_text("not a database " * 100)
    sqlite3.connect(tmp_path / "foreign.sqlite").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(InputError, match="cannot be read"):
        build_index(tmp_path / "none.jsonl", tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="no pages"):
        build_index(tmp_path / "empty.jsonl", tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="does not exist"):
        SearchIndex(tmp_path / "none.sqlite")
    with pytest.raises(InputError, match="not a SQLite file"):
        SearchIndex(tmp_path / "text.sqlite")
    with pytest.raises(InputError, match="format version 0, expected 1"):
        SearchIndex(tmp_path / "foreign.sqlite")
