"""Recognises Python that a model wrote without any mark around it. Pure."""

import ast
import re
import warnings

_SUBMITS = re.compile(r"submit_final_answer\(.*\)", re.DOTALL)
_LONGEST = 20_000


def bare_code(text: str) -> tuple[str, str] | None:
    """The words before the code, and the code; None where ``text`` plainly means none.

    Code is all of ``text`` where that is Python that calls something, or its last line where that
    submits the answer and nothing else.
    """
    text = text.strip()
    if len(text) > _LONGEST or "(" not in text:
        return None
    if _calls_something(text):
        return "", text
    words, _, last = text.rpartition("\n")
    last = last.strip().strip("`")
    submits = _SUBMITS.fullmatch(last) is not None and _calls_something(last)
    return (words.strip(), last) if submits else None


def _calls_something(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))
