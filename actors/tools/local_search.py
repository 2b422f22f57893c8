"""The ``search`` tool over local corpora, and its control that finds nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from actors.tools.search import NO_RESULTS, SearchIndex
from actors.tools.tool import FunctionTool
from common.config import Search
from common.messages import Task

SMALL_INDEX_BYTES = 16 << 20
"""An index up to this size answers in well under a millisecond: not worth a thread."""


class LocalSearch(FunctionTool):
    """``search`` in the corpus that the task names, an index of ``lzero index``."""

    def __init__(self, search: Search, corpora: Mapping[str, str]) -> None:
        """Search ``corpora``, index files by corpus name; an empty path is an empty corpus."""
        super().__init__(self.search)
        self._search = search
        self._paths = {name: Path(path) for name, path in corpora.items() if path}
        self._names = tuple(corpora)
        self._indexes: dict[str, SearchIndex] = {}
        self._is_small: dict[str, bool] = {}

    async def search(self, query: str, task: Task) -> str:
        """Search for pages that hold the words of the query; gives their text, best page first.

        Case, accents and punctuation do not matter. "No results." where nothing matches.
        """
        if task.corpus not in self._names:
            raise ValueError(
                f"task '{task.task_id}' names the corpus '{task.corpus}'; "
                f"there are: {', '.join(self._names)}"
            )
        if task.corpus not in self._indexes:
            return NO_RESULTS
        index = self._indexes[task.corpus]
        if self._is_small[task.corpus]:
            return index.search(str(query))
        return await asyncio.to_thread(index.search, str(query))

    async def start(self) -> None:
        """Open the indexes.

        Raises:
            InputError: one is missing or not an index.
        """
        for name, path in self._paths.items():
            self._indexes[name] = SearchIndex(
                path,
                match=self._search.match,
                results=self._search.results,
                max_characters=self._search.max_characters,
            )
            self._is_small[name] = path.stat().st_size <= SMALL_INDEX_BYTES

    async def close(self) -> None:
        """Close the indexes."""
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()


class DisabledSearch(FunctionTool):
    """``search`` that finds nothing: the control experiment of an evaluation."""

    def __init__(self) -> None:
        """Nothing to open."""
        super().__init__(self.search)

    async def search(self, query: str) -> str:
        """Search for pages that hold the words of the query; gives their text, best page first.

        Case, accents and punctuation do not matter. "No results." where nothing matches.
        """
        return NO_RESULTS
