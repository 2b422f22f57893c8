import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.search.corpus import passages
from actors.tools.search.index import COMMON_PAGES, NO_RESULTS, SearchIndex, build_index
from common.config import Search
from common.errors import InputError
from launch.cli import main

PAGES = [
    ("Ada Lovelace", "Ada Lovelace, mathematician, born in London in 1815."),
    ("Notes", "Notes by Ada Lovelace."),
    ("São Paulo", "A city in Brazil, home of Zoë O'Brien."),
]


PLAIN = Search(match="all", results=1, title_weight=1.0)
"""All words must match, and titles are words like others."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"title": title, "text": text}) for title, text in PAGES]
    corpus.write_text("\n".join([*lines, ""]))
    assert build_index(corpus, tmp_path / "index.sqlite") == 3
    return tmp_path / "index.sqlite"


def test_all_words_must_match_and_the_shorter_page_ranks_first(database: Path) -> None:
    index = SearchIndex(database, PLAIN)
    assert index.search("Ada Lovelace") == PAGES[1][1]
    assert index.search("ada lovelace BORN?") == PAGES[0][1]
    assert index.search("Ada Lovelace composer") == NO_RESULTS


def test_any_word_matches_when_asked(database: Path) -> None:
    assert SearchIndex(database, Search(results=1)).search("born yesterday") == PAGES[0][1]


def test_a_page_without_its_title_gets_it_as_first_line(database: Path) -> None:
    assert SearchIndex(database, PLAIN).search("sao paulo brazil") == "São Paulo\n" + PAGES[2][1]


def test_several_results_come_best_first_and_cut_to_length(database: Path) -> None:
    index = SearchIndex(
        database, Search(match="all", results=2, title_weight=1.0, max_characters=10)
    )
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
    assert SearchIndex(database, PLAIN).search(query) == NO_RESULTS


HOSTILE_QUERIES = {
    "marks": "a" + "\u0301\u0327" * 250_000,
    "letters": "\u1e69" * 1_000_000,
    "words": "ada " * 250_000,
    "different words": " ".join(map(str, range(150_000))),
    "jamo": "\u1112\u1161\u11ab" * 300_000,
}


@pytest.mark.parametrize("query", HOSTILE_QUERIES.values(), ids=HOSTILE_QUERIES)
def test_no_query_takes_longer_than_its_beginning(database: Path, query: str) -> None:
    index = SearchIndex(database, PLAIN)
    begin = time.process_time()

    index.search(query)

    assert time.process_time() - begin < 0.1


def test_a_repeated_word_counts_once(database: Path) -> None:
    assert SearchIndex(database, PLAIN).search("born " * 63 + "lovelace") == PAGES[0][1]


@pytest.mark.parametrize("query", [["ada"], {"q": "ada"}, b"ada", None])
def test_a_query_that_is_no_text_is_a_type_error(database: Path, query: Any) -> None:
    with pytest.raises(TypeError, match="query must be text, got "):
        SearchIndex(database, PLAIN).search(query)


def test_a_search_that_is_given_up_ends_whenever_that_happens(tmp_path: Path) -> None:
    text = " ".join(f"common{n}" for n in range(64))
    lines = [json.dumps({"title": str(n), "text": text}) for n in range(3000)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    build_index(tmp_path / "c.jsonl", tmp_path / "c.sqlite")
    index, given_up = SearchIndex(tmp_path / "c.sqlite"), threading.Event()

    for delay_s in (0.0, 0.02):
        timer = threading.Timer(delay_s, given_up.set)
        given_up.clear()
        timer.start()
        if not delay_s:
            timer.join()
        begin = time.thread_time()
        with pytest.raises(ValueError, match="interrupted"):
            index.search(text, given_up)
        assert time.thread_time() - begin < delay_s + 0.2
        timer.join()
    assert index.search("common1") != NO_RESULTS


@pytest.mark.parametrize("query", ["zoe o'brien", "ZOË O’BRIEN", "Zoe\u0308 brien", '"zoë"'])
def test_accents_case_and_punctuation_do_not_matter(database: Path, query: str) -> None:
    assert SearchIndex(database, PLAIN).search(query).startswith("São Paulo")


def test_the_index_is_opened_read_only(database: Path) -> None:
    before = database.read_bytes()
    index = SearchIndex(database, PLAIN)
    index.search("ada")
    index.close()
    assert database.read_bytes() == before
    assert [p.name for p in database.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "got list"),
        ('{"title": "x"}', "'text'"),
        ('{"title": "", "text": "x"}', "'title'"),
        ('{"title": "x", "text": 3}', "'text' must be a non-empty string, got 3"),
        ('{"title": null, "text": "x"}', "'title' must be a non-empty string, got None"),
        ('{"title": "x", "text": ["' + "y" * 5000 + '"]}', r"got \['yyy.{50,200}\.\.\.$"),
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


def test_a_lone_surrogate_does_not_stop_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"title": "Zed", "text": "A letter \\ud83d."}')

    assert build_index(tmp_path / "c.jsonl", tmp_path / "c.sqlite") == 1
    assert SearchIndex(tmp_path / "c.sqlite").search("letter") == "Zed\nA letter ?."


def test_no_corpus_takes_quadratic_time(tmp_path: Path) -> None:
    texts = {
        "marks.txt": "a" + "\u0301\u0327" * 30_000,
        "heading.md": "# a" + " " * 200_000 + "b",
        "one_line.txt": "x" * 3_000_000,
        "many.txt": "a\n\n" * 100_000,
        "words.txt": "word " * 400_000,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    begin = time.process_time()

    build_index([tmp_path / name for name in texts], tmp_path / "c.sqlite")
    list(passages("Title", texts["many.txt"], 1_000_000))

    assert time.process_time() - begin < 5


def test_an_index_that_is_damaged_or_cannot_be_written_is_named(
    database: Path, tmp_path: Path
) -> None:
    index = SearchIndex(database, PLAIN)
    with sqlite3.connect(tmp_path / "empty.sqlite") as made:
        made.execute("PRAGMA user_version = 2")
    made.close()
    with pytest.raises(
        InputError, match=r"empty\.sqlite' is not a SQLite file that holds an index: no such table"
    ):
        SearchIndex(tmp_path / "empty.sqlite")

    whole = database.read_bytes()
    database.write_bytes(whole[:5000] + b"\xff" * (len(whole) - 5000))
    with pytest.raises(ValueError, match="the search index cannot be read: "):
        index.search("lovelace")
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match=r"'.*/folder' cannot be written"):
        build_index(tmp_path / "corpus.jsonl", tmp_path / "folder")
    with pytest.raises(InputError, match=r"'.*/corpus\.jsonl/x' cannot be written"):
        build_index(tmp_path / "corpus.jsonl", tmp_path / "corpus.jsonl" / "x")


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "text.sqlite").write_text("not a database " * 100)
    sqlite3.connect(tmp_path / "foreign.sqlite").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(InputError, match=r"none.jsonl does not exist"):
        build_index(tmp_path / "none.jsonl", tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="no pages"):
        build_index(tmp_path / "empty.jsonl", tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="does not exist"):
        SearchIndex(tmp_path / "none.sqlite")
    with pytest.raises(InputError, match="is not a SQLite file"):
        SearchIndex(tmp_path / "text.sqlite")
    with pytest.raises(InputError, match="format version 0, expected 2"):
        SearchIndex(tmp_path / "foreign.sqlite")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with every kind of file, and files that are none."""
    folder = tmp_path / "library"
    (folder / "deep" / ".git").mkdir(parents=True)
    (folder / "deep" / "garden.md").write_text("Intro words.\n\n## The Garden\n\nRoses grow here.")
    (folder / "harbour.txt").write_text("Ships of Wren, moored.")
    (folder / "pages.jsonl").write_text('{"title": "Zed", "text": "Zed is a letter."}\n')
    (folder / "deep" / ".git" / "hidden.txt").write_text("hidden words")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_a_folder_of_texts_is_indexed_under_headings_and_file_names(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "library.sqlite"

    assert main(["index", str(library), "--out", str(database)]) == 0

    index = SearchIndex(database, PLAIN)
    assert "indexed 3 pages" in capsys.readouterr().out
    assert index.search("roses") == (
        "The Garden\nIntro words.\n\n## The Garden\n\nRoses grow here."
    )
    assert index.search("moored") == "harbour\nShips of Wren, moored."
    assert index.search("letter") == "Zed is a letter."
    assert index.search("hidden") == NO_RESULTS


def test_a_first_heading_is_the_title_and_not_repeated_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\ufeff# Silent Harbor #\n\nA novel.\n")
    build_index([tmp_path / "a.md"], tmp_path / "a.sqlite")
    assert SearchIndex(tmp_path / "a.sqlite").search("harbor novel") == "Silent Harbor\nA novel."


def test_long_texts_become_passages_that_repeat_the_title(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n} speaks of topic{n}. " + "More words. " * 10 for n in range(30)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    database = tmp_path / "book.sqlite"

    pages = build_index([tmp_path / "book.txt"], database, passage_characters=400)

    found = SearchIndex(database, PLAIN).search("book topic17")
    assert 10 <= pages <= 30
    assert found.startswith("book\n")
    assert "topic17." in found
    assert len(found) <= 400


@given(st.text("ab. \n", max_size=200), st.integers(3, 40))
def test_passages_fit_and_lose_nothing_but_space(text: str, limit: int) -> None:
    made = list(passages("t", text, limit))

    assert all(len(passage) <= limit and passage.startswith("t\n") for passage in made)
    joined = "".join(passage.removeprefix("t\n") for passage in made)
    assert "".join(joined.split()) == "".join(text.split())


def test_what_cannot_be_indexed_is_one_line_and_exit_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "x.sqlite")
    for path, message in (
        ("latin.txt", "latin.txt, line 1 is not UTF-8"),
        ("empty", "holds no pages"),
        ("none", "does not exist"),
    ):
        assert main(["index", str(tmp_path / path), "--out", out]) == 2
        assert message in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--out", out, "--passage-characters", "9"]) == 2
    assert not (tmp_path / "x.sqlite").exists()


def test_tasks_index_still_takes_a_corpus_and_a_database(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text('{"title": "Zed", "text": "Zed is a letter."}\n')
    database = tmp_path / "x.sqlite"

    assert main(["tasks", "index", str(tmp_path / "corpus"), str(database)]) == 0
    assert SearchIndex(database, PLAIN).search("zed") == "Zed is a letter."


def indexed(folder: Path, *pages: tuple[str, str]) -> Path:
    lines = [json.dumps({"title": title, "text": text}) for title, text in pages]
    (folder / "pages.jsonl").write_text("\n".join(lines))
    build_index(folder / "pages.jsonl", folder / "pages.sqlite")
    return folder / "pages.sqlite"


def test_the_page_whose_title_is_the_query_comes_first(tmp_path: Path) -> None:
    short, long = "Wren Wren Wren.", "Wren, the ship. " + "It sailed for many years. " * 40
    database = indexed(tmp_path, ("Songs of Wren", short), ("Wren", long), ("Wren Wren", short))

    index = SearchIndex(database)
    assert index.find("wren?", 3)[0].title == "Wren"
    assert index.find("WREN, Wren!", 3)[0].title == "Wren Wren"
    assert SearchIndex(database, PLAIN).find("wren", 3)[0].title != "Wren"


def test_an_index_takes_the_place_of_no_other_file(tmp_path: Path) -> None:
    database = indexed(tmp_path, ("Wren", "A bird."))
    corpus = tmp_path / "pages.jsonl"
    before = corpus.read_bytes()

    with pytest.raises(InputError, match=r"pages\.jsonl' is no index and would be replaced"):
        build_index(corpus, corpus)

    assert corpus.read_bytes() == before
    assert build_index(corpus, database) == 1


def test_a_query_without_words_finds_nothing_not_even_a_title_without_any(tmp_path: Path) -> None:
    database = indexed(tmp_path, ("!!!", "An album."), ("Wren", "A bird."))

    assert SearchIndex(database).find(" ?", 3) == []


def test_a_word_in_a_title_outweighs_those_of_the_text(tmp_path: Path) -> None:
    told = "Tales\nHarbor, harbor and harbor."
    database = indexed(tmp_path, ("Tales", told), ("The Silent Harbor", "A novel by Anna Keller."))

    titles = [page.title for page in SearchIndex(database).find("Who wrote of the harbor?", 2)]
    assert titles == ["The Silent Harbor", "Tales"]
    assert SearchIndex(database, PLAIN).search("harbor") == told


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("東京タワー", "東京タワー"),
        ("日本の首都", "首都"),
        ("ประเทศไทย", "ไทย"),
        ("대한민국", "대한민국"),
        ("ＡＢＣ株式会社", "abc"),
        ("Lange Straße", "lange strasse"),
        ("Co\u00adope\u00adration", "cooperation"),
        ("C#", "C#"),
    ],
)
def test_pages_in_any_script_are_found_by_their_titles(
    tmp_path: Path, title: str, query: str
) -> None:
    others = (("C++", "A language."), ("京都", "古い都市。"), ("Other", "Nothing of the kind."))
    database = indexed(tmp_path, *others, (title, "x"))

    assert SearchIndex(database, Search(results=1)).find(query, 1)[0].title == title
    assert SearchIndex(database, PLAIN).find(query, 1)[0].title == title


def test_words_of_every_page_are_looked_up_only_if_nothing_else_is_found(tmp_path: Path) -> None:
    pages = [(f"Page {n}", f"The page of number{n}.") for n in range(COMMON_PAGES + 1)]
    index = SearchIndex(indexed(tmp_path, *pages), Search(results=3))

    assert [page.title for page in index.find("the page of number7", 3)] == ["Page 7"]
    assert [page.title for page in index.find("the page", 3)] == ["Page 0", "Page 1", "Page 2"]
    assert len(index.find("the zebra", 3)) == 3


def test_words_that_are_read_together_at_the_end_of_a_title_are_one(tmp_path: Path) -> None:
    pages = (("Other", "JR " * 9), ("J. R.", "A person with a long page. " * 9))

    assert SearchIndex(indexed(tmp_path, *pages)).find("J. R.", 1)[0].title == "J. R."
