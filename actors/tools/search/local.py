"""The ``search`` tool over local corpora, and its control that finds nothing."""

import os
from collections.abc import Mapping
from pathlib import Path

from actors.tools.arguments import cut_text
from actors.tools.search.index import MAX_QUERY_CHARACTERS, NO_RESULTS, SearchIndex
from actors.tools.search.readers import IndexReaders
from actors.tools.tool import FunctionTool
from common.config import Search
from common.wire.records import Task

SMALL_INDEX_BYTES = 1 << 20
"""An index up to this size answers any query in a few milliseconds: not worth a thread."""

READERS = min(4, os.cpu_count() or 1)
"""Connections to each larger index: queries that run at once."""


class LocalSearch(FunctionTool):
    """``search`` in the corpus that the task names, an index of ``lzero index``."""

    def __init__(self, search: Search, corpora: Mapping[str, str]) -> None:
        """Search ``corpora``, index files by corpus name; an empty path is an empty corpus."""
        super().__init__(self.search)
        self._search = search
        self._paths = {name: Path(path) for name, path in corpora.items() if path}
        self._names = tuple(corpora)
        self._small: dict[str, SearchIndex] = {}
        self._large: dict[str, IndexReaders] = {}

    async def search(self, query: str, task: Task) -> str:
        """Search for pages that hold the words of the query; gives their text, best page first.

        Case, accents and punctuation do not matter. "No results." where nothing matches.
        """
        if task.corpus not in self._names:
            raise ValueError(
                f"task '{task.task_id}' names the corpus '{task.corpus}'; "
                f"there are: {', '.join(self._names)}"
            )
        if task.corpus in self._small:
            return self._small[task.corpus].search(query)
        if task.corpus in self._large:
            return await self._large[task.corpus].search(query)
        return NO_RESULTS

    async def start(self) -> None:
        """Open the indexes.

        Raises:
            InputError: one is missing or not an index.
        """
        for name, path in self._paths.items():
            first = self._open(path)
            if path.stat().st_size <= SMALL_INDEX_BYTES:
                self._small[name] = first
            else:
                others = [self._open(path) for _ in range(READERS - 1)]
                self._large[name] = IndexReaders([first, *others])

    async def close(self) -> None:
        """Close the indexes."""
        for index in self._small.values():
            index.close()
        for readers in self._large.values():
            await readers.close()
        self._small.clear()
        self._large.clear()

    def _open(self, path: Path) -> SearchIndex:
        return SearchIndex(path, self._search)


class DisabledSearch(FunctionTool):
    """``search`` that finds nothing: the control experiment of an evaluation."""

    def __init__(self) -> None:
        """Nothing to open."""
        super().__init__(self.search)

    async def search(self, query: str) -> str:
        """Search for pages that hold the words of the query; gives their text, best page first.

        Case, accents and punctuation do not matter. "No results." where nothing matches.
        """
        cut_text(query, "query", MAX_QUERY_CHARACTERS)
        return NO_RESULTS
