"""Records whose answer is a program: HumanEval and MBPP, scored by their own tests."""

import ast
from collections.abc import Iterator

from launch.data.sources.entries import Entry
from launch.data.sources.fields import golds, identity, string
from launch.data.sources.reading import Row

_COMPLETE = (
    "Complete the following Python function. Answer with the whole source code of the function, "
    "including its imports.\n\n"
)
_SATISFY = "Answer with Python source code that passes these tests:\n"


def humaneval(row: Row) -> Entry:
    """The prompt is the beginning of a program. Source: Chen et al. 2021, arXiv:2107.03374."""
    prompt, name = string(row, "prompt"), string(row, "entry_point")
    return Entry(
        source="humaneval",
        original_id=identity(row, "task_id"),
        question=_COMPLETE + prompt,
        golds=(prompt + string(row, "canonical_solution"),),
        kind="code",
        details={
            "prefix": prompt,
            "tests": f"{string(row, 'test')}\ncheck({name})",
            "entry_point": name,
        },
    )


def mbpp(row: Row) -> Entry:
    """A sentence with three asserts, of which the first also names the function.

    Source: Austin et al. 2021, arXiv:2108.07732; the sanitized subset has ``prompt``, the whole set
    ``text``.

    Raises:
        ValueError: tests or code are no Python.
    """
    code = string(row, "code")
    tests = _lines(row, "test_list")
    imports = [*_lines(row, "test_imports"), *_setup(row)]
    name = _tested(code, tests)
    text = string(row, "prompt" if "prompt" in row else "text")
    return Entry(
        source="mbpp",
        original_id=identity(row, "task_id"),
        question=f"{text.strip()}\n{_SATISFY}" + "\n".join(tests),
        golds=(code,),
        kind="code",
        details={
            "tests": "\n".join([*imports, *tests]),
            **({"entry_point": name} if name else {}),
        },
    )


def _lines(row: Row, key: str) -> list[str]:
    return [line for line in golds(row.get(key) or [], key) if line]


def _setup(row: Row) -> list[str]:
    setup = row.get("test_setup_code")
    return [setup] if isinstance(setup, str) and setup.strip() else []


def _tested(code: str, tests: list[str]) -> str | None:
    """The first function of ``code`` that the tests call."""
    try:
        made = set(_defined(ast.parse(code)))
        called = [name for test in tests for name in _called(ast.parse(test))]
    except SyntaxError as error:
        raise ValueError(f"fields 'code' and 'test_list' must be Python: {error}") from error
    return next((name for name in called if name in made), None)


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
