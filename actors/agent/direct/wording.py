"""Words the question of direct mode: what to end with, and the pages that a search found."""

from collections.abc import Awaitable, Callable

from actors.tools.search.index import MAX_QUERY_CHARACTERS
from actors.tools.tool import Tool, ToolCall
from common.errors import LZeroError, PluginError
from common.wire.records import Task

Wording = Callable[[Task, str], Awaitable[str]]
"""Words the question of a task for the policy; what is scored is the task as it was."""

_SHORT = (
    "Think as long as you need. Then end with one line of the form\n"
    "Answer: ...\n"
    "that holds nothing but the answer: a name, a date, a number, yes or no, or a few words; no "
    "sentence and no explanation."
)
_ENDINGS = {
    "number": (
        "Work it out step by step. Then end with one line of the form\n"
        "Answer: ...\n"
        "that holds nothing but the number, in digits and without a unit."
    ),
    "math": (
        "Work it out step by step. Then end with one line of the form\n"
        "Answer: \\boxed{...}\n"
        "that holds nothing but the final result."
    ),
    "code": (
        "Write one block of Python code between ```python and ```; nothing outside of it counts. "
        "It must be complete: imports and everything else that it needs."
    ),
    "judged": (
        "Think as long as you need. Then end with one line of the form\n"
        "Answer: ...\n"
        "that says the answer in a few words; if you do not know it, say so there."
    ),
}


async def ask_directly(task: Task, question: str) -> str:
    """The question, and what to end the answer with."""
    return f"{question}\n\n{_ENDINGS.get(task.kind, _SHORT)}"


class AskWithPages:
    """Puts what a search for the question finds in front of it."""

    def __init__(self, search: Tool) -> None:
        """Ask the tool ``search``, started."""
        self._search = search

    async def __call__(self, task: Task, question: str) -> str:
        """The pages, the question, and what to end the answer with.

        Raises:
            PluginError: the search failed.
        """
        query = question[:MAX_QUERY_CHARACTERS]
        try:
            pages = await self._search.call(
                ToolCall(name="search", arguments=(query,), keywords={}, task=task)
            )
        except LZeroError:
            raise
        except Exception as error:  # a service or an index may fail in any way
            raise PluginError(f"search failed: {type(error).__name__}: {error}") from error
        asked = await ask_directly(task, question)
        return (
            "These pages were found by a search for the question below. They may answer it, or "
            f"not.\n\n{pages}\n\nQuestion: {asked}"
        )
