"""Runs an answer and its tests in fresh sandboxes, and says whether they pass.

consumes   a program, and kernels of a pool
produces   whether its tests passed
waits for  kernels; then for the program, for at most its ``timeout_s``
unblocked by  the kernels' deadlines, or their death: what the program does to its sandbox, a hang,
           an exit, too much memory or output, is a failed test. Only a kernel that does not start,
           or whose launcher ends, is no fault of it
"""

import asyncio
import inspect
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from actors.kernels.interface import CellStatus, DeathCause, KernelDiedError, LiveKernel
from actors.kernels.pool import KernelPool
from actors.kernels.tool_specs import ToolError, ToolHandler, ToolParameter, ToolSpec
from actors.rewards.programs import inside
from actors.rewards.programs.program import Program

_OURS = frozenset(
    {
        DeathCause.CANCELLED,
        DeathCause.CLOSED,
        DeathCause.LAUNCHER_DIED,
        DeathCause.FAILED_TO_START,
    }
)
_GROUND = inspect.getsource(inside)
_GROUND_S = 10.0
"""To run our own code in a kernel that is fresh."""
_OUTPUT_BYTES = 1000
"""Nobody reads what a program prints."""


async def passes(program: Program, kernels: KernelPool) -> bool:
    """Whether the tests of a program pass.

    Raises:
        KernelDiedError: a sandbox could not be had.
    """
    if program.entry_point:
        async with kernels.slot() as first, kernels.slot() as second:
            return await _passes_apart(program, first, second)
    async with kernels.slot() as kernel:
        return await _passes_together(program, kernel)


async def _passes_apart(program: Program, theirs: LiveKernel, ours: LiveKernel) -> bool:
    """Answer in one sandbox, tests in the other."""
    relay = _Calls()
    await _prepare(theirs, [_tool("next_call", "reply")], relay.next_call)
    await _prepare(ours, [_tool("call", "arguments"), _tool("passed")], relay.from_tests)
    entry, prefix = program.entry_point, program.prefix
    serving = f"serve({prefix!r}, {program.answer!r}, {entry!r}, next_call)"
    checking = f"check({prefix!r}, {program.tests!r}, {entry!r}, call, passed)"
    await _until_one_ends(
        _cell(theirs, serving, program.timeout_s), _cell(ours, checking, program.timeout_s)
    )
    return relay.passed


async def _passes_together(program: Program, kernel: LiveKernel) -> bool:
    """Both in one sandbox; the tests know a word that the answer, run before, did not."""
    words: list[str] = []

    async def passed(name: str, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        words.append(_text(given))

    await _prepare(kernel, [_tool("passed", "word")], passed)
    ends_at = time.monotonic() + program.timeout_s
    making = f"made = module_of({program.prefix!r}, {program.answer!r})"
    answering = _cell(kernel, f"kept = dict(vars(builtins))\n{making}", program.timeout_s)
    status = await _until_one_ends(answering)
    if status is not CellStatus.OK:
        return False
    word = secrets.token_hex(16)
    checking = f"check_together(made, kept, {program.tests!r}, lambda: passed({word!r}))"
    await _until_one_ends(_cell(kernel, checking, max(ends_at - time.monotonic(), 0.1)))
    return words[-1:] == [word]


class _Calls:
    """Carries calls from the tests to the answer, and replies back."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[str] = asyncio.Queue()
        self._replies: asyncio.Queue[str] = asyncio.Queue()
        self._serves = False
        self.passed = False

    async def next_call(self, name: str, given: tuple[Any, ...], keywords: dict[str, Any]) -> str:
        """Of the answer's sandbox: its reply to the last call, if there was one, for the next."""
        if self._serves:
            await self._replies.put(_text(given))
        self._serves = True
        return await self._calls.get()

    async def from_tests(self, name: str, given: tuple[Any, ...], keywords: dict[str, Any]) -> str:
        """Of the tests' sandbox."""
        if name == "passed":
            self.passed = True
            return ""
        await self._calls.put(_text(given))
        return await self._replies.get()


async def _prepare(kernel: LiveKernel, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
    kernel.bind_tools(tools, handler)
    done = await kernel.execute(_GROUND, timeout_s=_GROUND_S, output_bytes=_OUTPUT_BYTES)
    if done.status is not CellStatus.OK:
        raise KernelDiedError(f"kernel {kernel.kernel_id}: {done.output}")


async def _cell(kernel: LiveKernel, code: str, timeout_s: float) -> CellStatus:
    return (await kernel.execute(code, timeout_s=timeout_s, output_bytes=_OUTPUT_BYTES)).status


async def _until_one_ends(*cells: Coroutine[Any, Any, CellStatus]) -> CellStatus | None:
    """Run cells until one of them ends, and give the others up.

    Returns:
        How the first one ended; None if its kernel died, which is its own doing.

    Raises:
        KernelDiedError: a kernel ended that nothing in it can have ended.
    """
    tasks = [asyncio.ensure_future(cell) for cell in cells]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception()
        if isinstance(error, KernelDiedError) and error.cause not in _OURS:
            return None
        if error is not None:
            raise error
    return next(iter(done)).result()


def _text(given: Sequence[Any]) -> str:
    if len(given) != 1 or not isinstance(given[0], str):
        raise ToolError("expected one text")
    return given[0]


def _tool(name: str, *parameters: str) -> ToolSpec:
    return ToolSpec(
        name=name, doc="", parameters=tuple(ToolParameter(name=one) for one in parameters)
    )
