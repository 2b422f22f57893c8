"""The event loop of a notebook: for cells that await, and for the tasks that cells start."""

import ast
import asyncio
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any

_NEEDS_LOOP = ("create_task", "ensure_future", "gather", "get_event_loop", "get_running_loop")
"""Functions of asyncio that look for the loop that runs."""
_BRINGS_LOOP = ("run_until_complete", "run_forever", "Runner")
"""Functions that work only where none runs; and ``asyncio.run``."""
_MOST_TURNS = 100


class CellLoop:
    """Runs cells with top-level ``await`` on one event loop per kernel, made when first needed."""

    def __init__(self) -> None:
        """No loop yet: it must not be made before the fork."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run ``coroutine`` to its end; an interrupt cancels it."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                raise
            raise KeyboardInterrupt().with_traceback(self._stop(self._loop, task)) from None

    def _stop(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]
    ) -> TracebackType | None:
        """Cancel a cell; the frames where it was."""
        self.stopping = True
        try:
            task.cancel()
            (result,) = loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        finally:
            self.stopping = False
        error = result if isinstance(result, BaseException) else result.error_in_exec
        return error.__traceback__ if error is not None else None

    def catch_up(self) -> None:
        """Let tasks that earlier cells left behind go on for as far as they can at once."""
        loop = self._loop
        if loop is None or loop.is_running() or loop.is_closed():
            return
        asyncio.set_event_loop(loop)  # asyncio.run() leaves none
        for _ in range(_MOST_TURNS):
            if not asyncio.all_tasks(loop):
                return
            loop.run_until_complete(asyncio.sleep(0))


def needs_loop(code: str) -> bool:
    """Whether a cell without ``await`` must run inside of a running loop.

    As everywhere in Jupyter, ``asyncio.create_task(...)`` works in a cell. Unlike there,
    ``asyncio.run(...)`` does too, which must not find a running loop.
    """
    if not any(name in code for name in _NEEDS_LOOP):
        return False
    try:
        called = list(_called(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if any(name.rpartition(".")[2] in _BRINGS_LOOP or name == "asyncio.run" for name in called):
        return False
    return any(name.removeprefix("asyncio.") in _NEEDS_LOOP for name in called)


def _called(node: ast.AST) -> Iterator[str]:
    """Names of what is called outside of coroutines: ``f``, ``m.f``, or ``.f`` of anything."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.AsyncFunctionDef):
            continue
        match child:
            case ast.Call(func=ast.Name(id=name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)):
                yield f"{owner}.{name}"
            case ast.Call(func=ast.Attribute(attr=name)):
                yield f".{name}"
        yield from _called(child)
