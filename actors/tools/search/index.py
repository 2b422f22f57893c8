"""Full-text search over a corpus of pages: SQLite FTS5, ranked by BM25.

The index is one read-only file. Ties in rank are broken by the order of the corpus, so that the
same query always finds the same page.
"""

import contextlib
import os
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from actors.tools.arguments import cut_text
from actors.tools.search.corpus import PASSAGE_CHARACTERS, Page, read_pages
from common.errors import InputError

NO_RESULTS = "No results."
"""What a query that finds nothing returns."""

FORMAT_VERSION = 1
"""Written to the index as ``user_version``; another one is refused."""

MAX_QUERY_CHARACTERS = 1000
"""The rest of a longer query is ignored; to compose the letters of a text takes quadratic time."""

MAX_QUERY_WORDS = 64
"""Words of a query beyond these are ignored."""

_RARE_WORD = '"lzero-index-check"'
_STEPS_UNCHECKED = 1000
"""Steps of SQLite's machine between two looks at ``given_up``: well below a millisecond."""

_SCHEMA = """
CREATE VIRTUAL TABLE pages USING fts5(text, title UNINDEXED,
                                      tokenize = "unicode61 remove_diacritics 2");
"""
_EXPECTED = "JSON lines with title and text, or text files, or a folder of these"
_QUERY = "SELECT text FROM pages WHERE pages MATCH ? ORDER BY rank, rowid LIMIT ?"


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
            cannot be written.
    """
    paths = [corpus] if isinstance(corpus, Path) else list(corpus)
    pages = read_pages(paths, passage_characters=passage_characters)
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


def _write(database: Path, pages: Iterable[Page]) -> int:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        statement = "INSERT INTO pages (title, text) VALUES (?, ?)"
        return connection.executemany(statement, pages).rowcount


class SearchIndex:
    """A corpus that can be searched.

    Args:
        path: an index that ``build_index`` made.
        match: ``all``: a page must hold all words of the query; ``any``: at least one.
        results: pages returned, best first, separated by an empty line.
        max_characters: longest text returned for one page.

    Raises:
        InputError: ``path`` is missing or not an index of this format.
    """

    def __init__(
        self,
        path: Path,
        match: Literal["all", "any"] = "all",
        results: int = 1,
        max_characters: int = 1000,
    ) -> None:
        """Open the index read-only and check its format."""
        self._joiner = " AND " if match == "all" else " OR "
        self._results = results
        self._max_characters = max_characters
        self._connection = _opened(path)

    def search(self, query: str, given_up: threading.Event | None = None) -> str:
        """The best pages for ``query`` as text, or ``NO_RESULTS``. Any string is a safe query.

        Args:
            query: words to look for.
            given_up: ends the search soon after it is set, at whatever moment; SQLite's own
                ``interrupt`` would be lost if it came before the statement runs.

        Raises:
            ValueError: the index is damaged, or the search was given up.
        """
        words = _words(cut_text(query, "query", MAX_QUERY_CHARACTERS))
        if not words:
            return NO_RESULTS
        expression = self._joiner.join(f'"{word}"' for word in words)
        is_set = given_up.is_set if given_up is not None else None
        self._connection.set_progress_handler(is_set, _STEPS_UNCHECKED)
        try:
            rows = self._connection.execute(_QUERY, (expression, self._results)).fetchall()
        except sqlite3.Error as error:
            raise ValueError(f"the search index cannot be read: {error}") from error
        texts = [str(text)[: self._max_characters] for (text,) in rows]
        return "\n\n".join(texts) if texts else NO_RESULTS

    def close(self) -> None:
        """Close the index; further searches fail."""
        self._connection.close()


def _words(query: str) -> list[str]:
    """Runs of letters, digits and their marks, in order: what the index holds as words.

    A repeated word says nothing new and would cost as much as the first.
    """
    text = unicodedata.normalize("NFC", query)
    kept = "".join(
        letter if letter.isalnum() or unicodedata.category(letter).startswith("M") else " "
        for letter in text
    )
    words = [word for word in kept.split() if any(letter.isalnum() for letter in word)]
    return list(dict.fromkeys(words))[:MAX_QUERY_WORDS]


def _opened(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise InputError(f"search index '{path}' does not exist; make it with lzero index")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = None
    try:
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == FORMAT_VERSION:
            connection.execute(_QUERY, (_RARE_WORD, 1)).fetchall()
            return connection
        problem = f"has format version {version}, expected {FORMAT_VERSION}"
    except sqlite3.Error as error:
        problem = f"is not a SQLite file that holds an index: {error}"
    if connection is not None:
        connection.close()
    raise InputError(f"search index '{path}' {problem}; build it again with lzero index")
