"""Full-text search over a corpus of pages: SQLite FTS5, ranked by BM25.

The index is one read-only file. Ties in rank are broken by the order of the corpus, so that the
same query always finds the same page.
"""

import json
import os
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

from common.errors import InputError

NO_RESULTS = "No results."
"""What a query that finds nothing returns."""

FORMAT_VERSION = 1
"""Written to the index as ``user_version``; another one is refused."""

MAX_QUERY_WORDS = 64
"""Words of a query beyond these are ignored."""

_SCHEMA = """
CREATE VIRTUAL TABLE pages USING fts5(text, title UNINDEXED,
                                      tokenize = "unicode61 remove_diacritics 2");
"""
_QUERY = "SELECT text FROM pages WHERE pages MATCH ? ORDER BY rank, rowid LIMIT ?"


def build_index(corpus: Path, database: Path) -> int:
    """Index a corpus; an existing index is replaced in one step.

    Args:
        corpus: JSON lines with ``title`` and ``text``. A text that does not begin with its title
            gets the title as its first line.
        database: where to write the index.

    Returns:
        How many pages were indexed.

    Raises:
        InputError: the corpus is missing, empty or malformed; names file and line.
    """
    partial = database.with_name(f".{database.name}.{os.getpid()}")
    database.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(partial)) as connection, connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            statement = "INSERT INTO pages (title, text) VALUES (?, ?)"
            pages = connection.executemany(statement, _read_pages(corpus)).rowcount
        if pages <= 0:
            raise InputError(f"corpus '{corpus}' holds no pages; expected one JSON object per line")
        os.replace(partial, database)
    finally:
        partial.unlink(missing_ok=True)
    return pages


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
        if not path.is_file():
            raise InputError(f"search index '{path}' does not exist; make it with build_index")
        self._joiner = " AND " if match == "all" else " OR "
        self._results = results
        self._max_characters = max_characters
        uri = f"{path.resolve().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            version = _format_version(self._connection)
        except sqlite3.DatabaseError as error:
            self.close()
            raise InputError(f"search index '{path}' is not a SQLite file: {error}") from error
        if version != FORMAT_VERSION:
            self.close()
            raise InputError(
                f"search index '{path}' has format version {version}, expected "
                f"{FORMAT_VERSION}; build it again"
            )

    def search(self, query: str) -> str:
        """The best pages for ``query`` as text, or ``NO_RESULTS``. Any string is a safe query."""
        words = _words(query)
        if not words:
            return NO_RESULTS
        expression = self._joiner.join(f'"{word}"' for word in words)
        rows = self._connection.execute(_QUERY, (expression, self._results)).fetchall()
        texts = [str(text)[: self._max_characters] for (text,) in rows]
        return "\n\n".join(texts) if texts else NO_RESULTS

    def close(self) -> None:
        """Close the index; further searches fail."""
        self._connection.close()


def _words(query: str) -> list[str]:
    """Runs of letters, digits and their marks, in order: what the index holds as words."""
    text = unicodedata.normalize("NFC", query)
    kept = "".join(
        letter if letter.isalnum() or unicodedata.category(letter).startswith("M") else " "
        for letter in text
    )
    words = [word for word in kept.split() if any(letter.isalnum() for letter in word)]
    return words[:MAX_QUERY_WORDS]


def _format_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _read_pages(corpus: Path) -> Iterator[tuple[str, str]]:
    """The pages of a corpus as (title, text), checked line by line."""
    try:
        with corpus.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_page(line, f"corpus '{corpus}' line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"corpus '{corpus}' cannot be read: {error}") from error


def _read_page(line: str, where: str) -> tuple[str, str]:
    try:
        page = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: expected a JSON object, got {error}") from error
    if not isinstance(page, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(page).__name__}")
    for key in ("title", "text"):
        if not isinstance(page.get(key), str) or not page[key].strip():
            raise InputError(f"{where}: '{key}' must be a non-empty string, got {page.get(key)!r}")
    title, text = _storable(page["title"]), _storable(page["text"])
    return title, text if text.startswith(title) else f"{title}\n{text}"


def _storable(text: str) -> str:
    """NFC text that UTF-8 can hold (lone surrogates become question marks)."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
