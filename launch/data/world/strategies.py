"""What a trajectory did, by strategy: how it searched, chained, computed and answered.

Everything is read from the code that ran and what it printed, not from what the policy said that
it would do. One action may count for several strategies.
"""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from common.wire.records import Step, Task


class Strategy(StrEnum):
    """A way to search or to answer."""

    NAME_AND_TOPIC = "searched a name and a topic"
    BARE_NAME = "searched a bare name"
    WHOLE_QUESTION = "searched the whole question"
    ONE_WORD = "searched one word"
    OTHER_SEARCH = "searched something else"
    CHAINED = "searched a name it had read"
    COMPUTED = "computed the answer in code"
    SUBMITTED_VALUE = "submitted a value"
    SUBMITTED_SENTENCE = "submitted a sentence"
    SUBMITTED_UNKNOWN = "submitted that it does not know"
    GUESSED = "submitted without searching"
    PRINTED = "ran code without search or answer"
    UNPARSABLE = "wrote no valid action"


SENTENCE_WORDS = 4
"""An answer of more words than this is a sentence."""

_NAME = re.compile(r"[A-Z][\w'-]+ [A-Z][\w'-]+")


def strategies(task: Task, steps: Sequence[Step]) -> Counter[Strategy]:
    """Count the strategies of one trajectory.

    Args:
        task: its question; labels are not needed.
        steps: its actions and observations, in order.
    """
    counts: Counter[Strategy] = Counter()
    seen = ""
    searched = False
    for step in steps:
        calls = _calls(step.code)
        for name, argument in calls:
            if name == "search":
                searched = True
                counts.update(_of_search(argument, task.question, seen))
            else:
                counts.update(_of_answer(argument, searched))
        if not calls:
            counts[Strategy.UNPARSABLE if step.code is None else Strategy.PRINTED] += 1
        seen += f"\n{step.observation}"
    return counts


def _calls(code: str | None) -> list[tuple[str, ast.expr | None]]:
    """Calls of the two tools with their first argument; none where the code does not parse."""
    try:
        tree = ast.parse(code or "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        (node.func.id, node.args[0] if node.args else None)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("search", "submit_final_answer")
    ]


def _of_search(argument: ast.expr | None, question: str, seen: str) -> list[Strategy]:
    query = _text(argument)
    if query is None:
        return [Strategy.OTHER_SEARCH]
    found = [_kind_of_query(query, question)]
    name = _NAME.match(query)
    if name and name.group() in seen and name.group() not in question:
        found.append(Strategy.CHAINED)
    return found


def _kind_of_query(query: str, question: str) -> Strategy:
    words = query.split()
    if _words(query) == _words(question):
        return Strategy.WHOLE_QUESTION
    if len(words) == 1:
        return Strategy.ONE_WORD
    name = _NAME.match(query)
    if name is None:
        return Strategy.OTHER_SEARCH
    return Strategy.BARE_NAME if name.group() == query.strip() else Strategy.NAME_AND_TOPIC


def _of_answer(argument: ast.expr | None, searched: bool) -> list[Strategy]:
    found = [] if searched else [Strategy.GUESSED]
    answer = _text(argument)
    if isinstance(argument, ast.BinOp):
        return [*found, Strategy.COMPUTED]
    if answer is None:
        return [*found, Strategy.SUBMITTED_VALUE]
    if answer.strip().lower() in ("", "unknown"):
        return [*found, Strategy.SUBMITTED_UNKNOWN]
    is_sentence = len(answer.split()) > SENTENCE_WORDS
    return [*found, Strategy.SUBMITTED_SENTENCE if is_sentence else Strategy.SUBMITTED_VALUE]


def _text(argument: ast.expr | None) -> str | None:
    return str(argument.value) if isinstance(argument, ast.Constant) else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
