"""A policy that plays a script, and a kernel without a sandbox, for tests of the agent's loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from actors.agent.token_conversation import TokenConversation
from actors.episode import Conversations
from actors.kernels.interface import CellResult, CellStatus
from actors.kernels.tool_specs import ToolSpec
from actors.tokenizer import FileTokenizer
from common.chat import ChatRenderer
from common.wire.generation import Generation

MODEL = Path(__file__).resolve().parents[1] / "launch" / "presets" / "warmstart"
TOKENIZER = FileTokenizer(MODEL)


class ScriptedPolicy:
    """Samples the given texts in order, each token with log-probability -0.5 by version 3."""

    def __init__(self, *actions: str | Exception) -> None:
        self.actions = list(actions)
        self.prompts: list[list[int]] = []

    async def generate(self, prompt_ids: Sequence[int], **_: Any) -> Generation:
        self.prompts.append(list(prompt_ids))
        action = self.actions.pop(0)
        if isinstance(action, Exception):
            raise action
        ids = np.array(TOKENIZER.encode(action), dtype=np.int32)
        return Generation(
            token_ids=ids,
            logprobs=np.full(len(ids), -0.5, dtype=np.float32),
            versions=np.full(len(ids), 3, dtype=np.int32),
            finish_reason="stop",
        )


def conversations(policy: Any, *, limit: int, direct: bool = False) -> Conversations:
    """Conversations in token ids with a policy of a test."""
    return lambda temperature: TokenConversation(
        policy=policy,
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=limit,
        temperature=temperature,
        whole_turns=direct,
    )


class FakeKernel:
    """Prints ``output``; a cell with ``submit`` in it submits, through the bound tool."""

    kernel_id, level, alive = "k", "fake", True

    def __init__(self, output: str, fault: Exception | None, hangs: bool) -> None:
        self.output, self.fault, self.hangs = output, fault, hangs
        self.handler: Callable[..., Awaitable[Any]] | None = None

    def bind_tools(self, tools: Sequence[ToolSpec], handler: Callable[..., Awaitable[Any]]) -> None:
        self.handler = handler

    async def execute(self, code: str, **limits: Any) -> CellResult:
        if self.fault is not None:
            raise self.fault
        if self.hangs:
            await asyncio.Event().wait()
        if "submit" in code and self.handler is not None:
            await self.handler("submit_final_answer", ("Port Alden",), {})
        return CellResult(
            status=CellStatus.OK, output=self.output, dropped_bytes=0, error_name=None, seconds=0.01
        )


class FakePool:
    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[FakeKernel]:
        yield self.kernel
