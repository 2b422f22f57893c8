"""A task of kind ``code``, and what an answer to it makes of it. Pure.

``task.details`` holds ``tests`` (Python, run after the answer; raises on failure), and may hold
``entry_point`` (the name that the answer must define), ``prefix`` (code before the answer) and
``timeout_s``. ``task.answers`` holds a whole reference program, or nothing.
"""

import ast
import builtins
import math
from dataclasses import dataclass

from common.wire.records import Task

TIMEOUT_S = 20.0
LONGEST_TIMEOUT_S = 30.0
MAX_CHARACTERS = 64_000
"""Of an answer; a longer one fails."""

_FENCE = "```"
_DETAILS = frozenset({"tests", "entry_point", "prefix", "timeout_s"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What is run for one answer.

    Attributes:
        prefix: run before the answer and before the tests; empty for nothing.
        answer: Python source.
        tests: Python source.
        entry_point: the function that the tests call; empty if the answer and its tests have to
            share a namespace.
        timeout_s: for all of it, wall time.
    """

    prefix: str
    answer: str
    tests: str
    entry_point: str
    timeout_s: float


def check_program(task: Task) -> None:
    """Look at a task of kind ``code``.

    Raises:
        ValueError: it cannot be scored.
    """
    details = task.details
    if unknown := sorted(set(details) - _DETAILS):
        raise ValueError(f"details has {unknown[0]!r}; kind 'code' knows {sorted(_DETAILS)}")
    if not details.get("tests", "").strip():
        raise ValueError("details['tests'] must hold the tests, Python that raises on failure")
    _parsed(details["tests"], "details['tests']")
    name = details.get("entry_point", "name")
    if not name.isidentifier():
        raise ValueError(f"details['entry_point'] must be a name, got {name[:60]!r}")
    _timeout(task)
    if len(task.answers) > 1:
        raise ValueError(
            f"answers holds the reference program alone, or nothing; got {len(task.answers)}"
        )
    for answer in task.answers:
        _parsed(answer, "the reference program in answers")


def program_of(task: Task, answer: str) -> Program:
    """What is run for ``answer``.

    An answer in fences is what is inside of them; a single block may lack its end. One that does
    not define the entry point completes the prefix. ``entry_point`` is empty where the tests use
    other names of the answer.
    """
    prefix, entry = task.details.get("prefix", ""), task.details.get("entry_point", "")
    source = _unfenced(answer) or answer
    if entry and prefix and not _defines(source, entry):
        source = prefix + source
    usable = prefix if _tree(prefix) is not None else ""
    tests = task.details["tests"]
    apart = entry if entry and not _foreign_names(usable, tests, entry) else ""
    return Program(
        prefix=usable, answer=source, tests=tests, entry_point=apart, timeout_s=_timeout(task)
    )


def _unfenced(answer: str) -> str:
    """What is inside of fences, in one pass over the lines; empty where there are none."""
    blocks: list[list[str]] = []
    opened: list[str] | None = None
    for line in answer.split("\n"):
        if opened is None:
            opened = [] if line.lstrip(" \t").startswith(_FENCE) else None
        elif line.strip() == _FENCE:
            blocks.append(opened)
            opened = None
        else:
            opened.append(line)
    whole = blocks or ([opened] if opened else [])
    return "\n".join("".join(f"{line}\n" for line in block) for block in whole)


def _timeout(task: Task) -> float:
    text = task.details.get("timeout_s")
    try:
        value = TIMEOUT_S if text is None else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_TIMEOUT_S:
        raise ValueError(
            f"details['timeout_s'] must be a number of seconds above 0 and at most "
            f"{LONGEST_TIMEOUT_S:g}, got {text!r}"
        )
    return value


def _parsed(source: str, what: str) -> ast.Module:
    tree = _tree(source)
    if tree is None:
        raise ValueError(f"{what} is not Python that can be parsed")
    return tree


def _tree(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(source: str, name: str) -> bool:
    tree = _tree(source)
    return tree is not None and name in _bound(tree)


def _foreign_names(prefix: str, tests: str, entry: str) -> set[str]:
    """Names that the tests use, and that only the answer can define, but for the entry point."""
    trees = [tree for tree in map(_tree, (prefix, tests)) if tree is not None]
    known = set().union(*map(_bound, trees)) | {entry} | set(dir(builtins)) | {"__name__"}
    used = {
        node.id
        for node in ast.walk(trees[-1])
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return used - known


def _bound(tree: ast.AST) -> set[str]:
    """Every name that is bound anywhere in a tree."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
