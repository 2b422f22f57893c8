"""The agent's notepad: a plan, facts and a draft that stay in the context through every trim.

It lives on the host; the notebook's object ``notepad`` calls these methods. Its text is shown at
the start of every segment, and after a cell that changed it.
"""

from typing import Any, Literal

Status = Literal["open", "doing", "done", "dropped"]
_MARKS = {"open": "[ ]", "doing": "[~]", "done": "[x]", "dropped": "[-]"}


class Notepad:
    """To-dos with a status, important facts, and the draft of the answer.

    Methods raise ValueError for bad arguments, or when it would hold more than ``limit``
    characters. They return nothing: after a change the policy is shown the notepad anyway.
    """

    methods = ("add_todo", "set_status", "add_fact", "write_draft", "read")

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` characters."""
        self._limit = limit
        self._todos: list[tuple[str, str]] = []
        self._facts: list[str] = []
        self._draft = ""

    def add_todo(self, text: str) -> None:
        """Add something to do."""
        self._fits(text)
        self._todos.append((_line(text), "open"))

    def set_status(self, number: int, status: Status) -> None:
        """Mark to-do NUMBER (from 1) as 'open', 'doing', 'done' or 'dropped'."""
        if not _is_between(number, 1, len(self._todos)):
            raise ValueError(f"there is no to-do {number!r}; there are {len(self._todos)}")
        if status not in _MARKS:
            raise ValueError(f"status must be one of {', '.join(_MARKS)}, got {status!r}")
        self._todos[number - 1] = (self._todos[number - 1][0], status)

    def add_fact(self, text: str) -> None:
        """Write down something found out; it survives when old steps leave the context."""
        self._fits(text)
        self._facts.append(_line(text))

    def write_draft(self, text: str) -> None:
        """Replace the draft of the answer."""
        self._fits(text, freed=len(self._draft))
        self._draft = str(text).strip()

    def read(self) -> str:
        """The whole notepad as text; empty when nothing was written."""
        parts = []
        if self._todos:
            lines = (f"{n}. {_MARKS[s]} {text}" for n, (text, s) in enumerate(self._todos, start=1))
            parts.append("To do:\n" + "\n".join(lines))
        if self._facts:
            parts.append("Facts:\n" + "\n".join(f"- {fact}" for fact in self._facts))
        if self._draft:
            parts.append(f"Draft:\n{self._draft}")
        return "\n".join(parts)

    def plan(self, steps: list[str]) -> None:
        """Replace all that is still to do by STEPS, in order; done and dropped ones stay."""
        if not _is_filled_list(steps):
            raise ValueError(f"a plan is a list of steps as text, got {steps!r}")
        closed = [todo for todo in self._todos if todo[1] in ("done", "dropped")]
        planned = [(_line(step), "open") for step in steps]
        freed = sum(len(text) for text, _ in self._todos) - sum(len(text) for text, _ in closed)
        self._fits("".join(text for text, _ in planned), freed=freed)
        self._todos = closed + planned

    def _fits(self, text: str, freed: int = 0) -> None:
        used = len(self.read()) - freed
        if used + len(str(text)) > self._limit:
            raise ValueError(
                f"the notepad holds {self._limit} characters and {max(0, self._limit - used)} are "
                f"free; the text has {len(str(text))}"
            )


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _is_between(number: Any, lowest: int, highest: int) -> bool:
    return isinstance(number, int) and lowest <= number <= highest


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0
