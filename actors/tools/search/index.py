"""Full-text search over a corpus of pages: SQLite FTS5, ranked by BM25.

The index is one read-only file. It holds the words by which answers are compared
(``common.text_tokens``), so that case, accents, width and scripts without spaces are no matter, in
two columns: the title, and what the page says beyond it. Ties in rank are broken by the order of
the corpus, so that the same query always finds the same page.
"""

import contextlib
import os
import sqlite3
import string
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from actors.tools.arguments import cut_text
from actors.tools.search.corpus import PASSAGE_CHARACTERS, Page, blocks, read_pages
from common.config import Search
from common.errors import InputError
from common.text_tokens import word_tokens

NO_RESULTS = "No results."
"""What a query that finds nothing returns."""

FORMAT_VERSION = 2
"""Written to the index as ``user_version``; another one is refused."""

MAX_QUERY_CHARACTERS = 1000
"""The rest of a longer query is ignored."""

MAX_QUERY_WORDS = 64
"""Words of a query beyond these are ignored."""

COMMON_SHARE, COMMON_PAGES = 0.1, 500
"""A word on more pages than both says nothing about any: a query that also has others goes without
it where any of its words may match. It costs more time than all others together."""

_STEPS_UNCHECKED = 1000
"""Steps of SQLite's machine between two looks at ``given_up``: well below a millisecond."""

_SQLITE = b"SQLite format 3\x00"
"""How every file of SQLite begins."""

_SIGNS = string.punctuation.replace("'", "''").replace('"', '""')
_SCHEMA = f"""
CREATE TABLE pages (id INTEGER PRIMARY KEY, title TEXT, text TEXT, title_words TEXT);
CREATE VIRTUAL TABLE words USING fts5(title, rest, content = '',
                                      tokenize = "ascii tokenchars '{_SIGNS}'");
"""
_FINISH = """
CREATE INDEX pages_by_title ON pages (title_words);
CREATE VIRTUAL TABLE temp.counts USING fts5vocab(main, words, row);
CREATE TABLE common_words (word TEXT);
INSERT INTO words(words) VALUES ('optimize');
"""
_COUNT_COMMON = "INSERT INTO common_words SELECT term FROM temp.counts WHERE doc > ?"
_EXPECTED = "JSON lines with title and text, or text files, or a folder of these"
_INSERT_PAGE = "INSERT INTO pages VALUES (?, ?, ?, ?)"
_INSERT_WORDS = "INSERT INTO words (rowid, title, rest) VALUES (?, ?, ?)"
_TITLED = "SELECT id FROM pages WHERE title_words = ? ORDER BY id LIMIT ?"
_MATCHED = (
    "SELECT rowid FROM words WHERE words MATCH ? AND rank MATCH ? ORDER BY rank, rowid LIMIT ?"
)
_COMMON = "SELECT word FROM common_words"
_PAGE = "SELECT title, text FROM pages WHERE id = ?"


def build_index(
    corpus: Path | Sequence[Path],
    database: Path,
    *,
    passage_characters: int = PASSAGE_CHARACTERS,
) -> int:
    """Index a corpus; an existing index is replaced in one step.

    Args:
        corpus: files or folders: JSON lines with ``title`` and ``text``, text, Markdown. A text
            that does not begin with its title gets the title as its first line.
        database: where to write the index.
        passage_characters: longer text and Markdown files are split into passages.

    Returns:
        How many pages were indexed.

    Raises:
        InputError: the corpus is missing, empty or malformed (names file and line), or the index
            cannot be written, or would replace a file that is none.
    """
    paths = [corpus] if isinstance(corpus, Path) else list(corpus)
    pages = read_pages(paths, passage_characters=passage_characters)
    _check_replaceable(database)
    partial = database.with_name(f".{database.name}.{os.getpid()}")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        count = _write(partial, pages)
        if count <= 0:
            named = ", ".join(map(str, paths))
            raise InputError(f"corpus '{named}' holds no pages; expected {_EXPECTED}")
        os.replace(partial, database)
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"search index '{database}' cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return count


def _check_replaceable(database: Path) -> None:
    """Refuse to put an index in the place of another file, such as its own corpus."""
    if not database.is_file():
        return
    try:
        with database.open("rb") as file:
            begin = file.read(len(_SQLITE))
    except OSError:
        return  # writing says more
    if begin and begin != _SQLITE:
        raise InputError(
            f"'{database}' is no index and would be replaced by one; name another file with --out"
        )


def _write(database: Path, pages: Iterable[Page]) -> int:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        count = 0
        for count, page in enumerate(pages, start=1):
            title, rest = _split(page)
            connection.execute(_INSERT_PAGE, (count, *page, title))
            connection.execute(_INSERT_WORDS, (count, title, rest))
        connection.commit()
        connection.executescript(_FINISH)
        connection.execute(_COUNT_COMMON, (max(COMMON_PAGES, COMMON_SHARE * count),))
        return count


def _split(page: Page) -> tuple[str, str]:
    """The words of the title, and those of the text without the title that it begins with."""
    title, text = ([word for block in blocks(part) for word in word_tokens(block)] for part in page)
    is_repeated = text[: len(title)] == title
    return " ".join(title), " ".join(text[len(title) :] if is_repeated else text)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPage:
    """A page that a query found; its text begins with its title."""

    title: str
    text: str


class SearchIndex:
    """A corpus that can be searched.

    Args:
        path: an index that ``build_index`` made.
        settings: whether all words must match, how many pages come back, how much of each, and
            what a word in a title is worth.

    Raises:
        InputError: ``path`` is missing or not an index of this format.
    """

    def __init__(self, path: Path, settings: Search | None = None) -> None:
        """Open the index read-only and check its format."""
        self._settings = settings or Search()
        self._connection, self._common = _opened(path)

    def search(self, query: str, given_up: threading.Event | None = None) -> str:
        """The best pages for ``query`` as text, or ``NO_RESULTS``. Any string is a safe query.

        Args:
            query: words to look for.
            given_up: ends the search soon after it is set, at whatever moment; SQLite's own
                ``interrupt`` would be lost if it came before the statement runs.

        Raises:
            ValueError: the index is damaged, or the search was given up.
        """
        found = self.find(query, self._settings.results, given_up)
        texts = [page.text[: self._settings.max_characters] for page in found]
        return "\n\n".join(texts) if texts else NO_RESULTS

    def find(
        self, query: str, results: int, given_up: threading.Event | None = None
    ) -> list[FoundPage]:
        """The best ``results`` pages for ``query``, best first; the rest is as in ``search``.

        BM25 as FTS5 has it (k1 1.2, b 0.75), where a word in the title counts ``title_weight``
        times. Above 1, pages whose title is the query come first.
        """
        words = word_tokens(cut_text(query, "query", MAX_QUERY_CHARACTERS))
        is_set = given_up.is_set if given_up is not None else None
        self._connection.set_progress_handler(is_set, _STEPS_UNCHECKED)
        try:
            return [self._page(page) for page in self._ranked(words, results)]
        except sqlite3.Error as error:
            raise ValueError(f"the search index cannot be read: {error}") from error

    def close(self) -> None:
        """Close the index; further searches fail."""
        self._connection.close()

    def _ranked(self, words: Sequence[str], results: int) -> list[int]:
        titled: list[int] = []
        if words and self._settings.title_weight > 1:
            titled = self._ids(_TITLED, " ".join(words), results)
        matched: list[int] = []
        for some in self._alternatives(tuple(dict.fromkeys(words))[:MAX_QUERY_WORDS]):
            matched = matched or self._matched(some, results)
        return list(dict.fromkeys([*titled, *matched]))[:results]

    def _alternatives(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """The words to look for, then those to look for if that finds nothing."""
        telling = [word for word in words if word not in self._common]
        if self._settings.match == "any" and telling:
            yield telling
        if words:
            yield words

    def _matched(self, words: Sequence[str], results: int) -> list[int]:
        joiner = " AND " if self._settings.match == "all" else " OR "
        expression = joiner.join(f'"{word}"' for word in words)
        rank = f"bm25({self._settings.title_weight!r}, 1.0)"
        return self._ids(_MATCHED, expression, rank, results)

    def _ids(self, query: str, *values: str | int) -> list[int]:
        return [row for (row,) in self._connection.execute(query, values)]

    def _page(self, page: int) -> FoundPage:
        title, text = self._connection.execute(_PAGE, (page,)).fetchone()
        return FoundPage(title=title, text=text)


def _opened(path: Path) -> tuple[sqlite3.Connection, frozenset[str]]:
    """A connection to an index, and its common words."""
    if not path.is_file():
        raise InputError(f"search index '{path}' does not exist; make it with lzero index")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = None
    try:
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == FORMAT_VERSION:
            connection.execute(_MATCHED, ('"x"', "bm25(1.0, 1.0)", 1)).fetchall()
            return connection, frozenset(word for (word,) in connection.execute(_COMMON))
        problem = f"has format version {version}, expected {FORMAT_VERSION}"
    except sqlite3.Error as error:
        problem = f"is not a SQLite file that holds an index: {error}"
    if connection is not None:
        connection.close()
    raise InputError(f"search index '{path}' {problem}; build it again with lzero index")
