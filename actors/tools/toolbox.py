"""The tools of one episode, run on the host: what is called here is what is recorded."""

from collections.abc import Mapping
from typing import Any, Protocol

from common.errors import LZeroError

MAX_CALLS = 64
"""Tool calls of one episode; further calls raise in the cell."""


class Searcher(Protocol):
    """Something that answers a query with text."""

    def search(self, query: str) -> str:
        """The best pages for ``query``, or "No results."."""
        ...


class NoSearch:
    """Finds nothing: the control experiment."""

    def search(self, query: str) -> str:
        """Always "No results."."""
        return "No results."


class Toolbox:
    """``search`` and ``submit_final_answer`` of one episode; the first submission counts."""

    names = ("search", "submit_final_answer")

    def __init__(self, searcher: Searcher) -> None:
        """Tools over one corpus."""
        self._searcher = searcher
        self.answer: str | None = None
        self.calls: list[str] = []
        self._taken = 0

    async def handle(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call from the sandbox; what it raises is raised in the cell."""
        if len(self.calls) >= MAX_CALLS:
            raise PermissionError(f"no more than {MAX_CALLS} tool calls per episode")
        self.calls.append(name)
        if name == "search":
            return self._search(*args, **kwargs)
        if name == "submit_final_answer":
            return self._submit(*args, **kwargs)
        raise KeyError(f"unknown tool {name!r}")

    def take_calls(self) -> tuple[str, ...]:
        """The names of the calls since the last time this was asked."""
        taken = tuple(self.calls[self._taken :])
        self._taken = len(self.calls)
        return taken

    def _search(self, query: object) -> str:
        try:
            return self._searcher.search(str(query))
        except LZeroError as error:
            raise ValueError(str(error)) from error

    def _submit(self, answer: object) -> None:
        if self.answer is not None:
            raise PermissionError("an answer was already submitted; only the first one counts")
        self.answer = str(answer)
