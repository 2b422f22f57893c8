"""Whatever a policy writes, calls and prints, its episode is never dropped as a fault of ours."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.prompt import PromptTemplate
from actors.agent.token_conversation import TokenConversation
from actors.agent.toolbox import ToolSet
from actors.kernels.interface import CellResult, CellStatus, ToolSpec
from common.chat import SPECIAL_TOKENS, ChatRenderer
from common.config import Agent
from common.generation import Generation
from common.messages import Outcome, Segment, Task
from tests.scripted_agent import TOKENIZER, FakePool

TOOLS = ("notepad", "planning", "context", "submit_final_answer")
NAMES = [spec.name for spec in ToolSet(Agent(tools=TOOLS), {}).specs]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-2, 6)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["\ud83d", "x" * 5000, "done", "<|im_end|>", "\0"])
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
CALLS = st.tuples(
    st.sampled_from(NAMES),
    st.lists(VALUES, max_size=3),
    st.dictionaries(st.sampled_from(["text", "step", "steps", "number", "answer", "x"]), VALUES),
)
CELL = "<think>a</think><code>b</code>"
TEXTS = st.lists(st.sampled_from([*SPECIAL_TOKENS, CELL, CELL, CELL, "a", "\n"]), max_size=4)
ACTIONS = st.just(CELL) | TEXTS.map("".join) | st.lists(st.integers(0, 5000), max_size=30)
OUTPUTS = st.text(max_size=40) | st.sampled_from(["\ud800", "é" * 4000, "<|im_start|>" * 9, "\0"])
PLAYS = st.lists(st.tuples(ACTIONS, st.lists(CALLS, max_size=3), OUTPUTS), min_size=1, max_size=6)
Plays = list[tuple[str | list[int], list[tuple[str, list[Any], dict[str, Any]]], str]]


class AnyPolicy:
    """Samples the given texts or token ids in turn, some of which no tokenizer knows."""

    def __init__(self, plays: Plays) -> None:
        self.actions = [action for action, _, _ in plays]

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, **_: Any) -> Generation:
        action = self.actions.pop(0) if self.actions else CELL
        ids = TOKENIZER.encode(action) if isinstance(action, str) else action
        ids = (ids or [2])[:max_tokens]
        return Generation(
            token_ids=np.array(ids, dtype=np.int32),
            logprobs=np.zeros(len(ids), dtype=np.float32),
            versions=np.zeros(len(ids), dtype=np.int32),
            finish_reason="stop",
        )


class AnyKernel:
    """Calls the given tools in each cell, catches what they raise, and prints."""

    kernel_id, level, alive = "k", "none", True

    def __init__(self, plays: Plays) -> None:
        self.cells = [(calls, output) for _, calls, output in plays]

    def bind_tools(self, tools: Sequence[ToolSpec], handler: Any) -> None:
        self.handler = handler

    async def execute(self, code: str, **_: Any) -> CellResult:
        calls, output = self.cells.pop(0) if self.cells else ([], "")
        for name, arguments, keywords in calls:
            try:
                await self.handler(name, tuple(arguments), keywords)
            except Exception as error:
                output += str(error)[:50]
        return CellResult(
            status=CellStatus.OK, output=output, dropped_bytes=0, error_name=None, seconds=0.0
        )


async def run(plays: Plays, trim: str, limit: int) -> tuple[Episode, tuple[Segment, ...]]:
    agent = Agent(
        tools=TOOLS,
        max_steps=7,
        max_action_tokens=60,
        max_observation_characters=300,
        format_reminders=3,
        trim=trim,  # type: ignore[arg-type]
    )
    loop = AgentLoop(
        agent=agent,
        kernels=FakePool(AnyKernel(plays)),  # type: ignore[arg-type]
        tools={},
        prompt=PromptTemplate("Work."),
        cell_timeout_s=1.0,
    )
    conversation = TokenConversation(
        policy=AnyPolicy(plays),  # type: ignore[arg-type]
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=limit,
        temperature=1.0,
    )
    episode = await loop.run(Task(task_id="t", question="?", answers=("x",)), conversation)
    return episode, conversation.segments()


@settings(max_examples=30, deadline=None)
@given(PLAYS, st.sampled_from(["none", "soft", "hard"]), st.integers(40, 700))
def test_no_policy_has_its_episode_dropped(plays: Plays, trim: str, limit: int) -> None:
    episode, segments = asyncio.run(run(plays, trim, limit))

    assert episode.outcome is not Outcome.INFRASTRUCTURE, episode.failure
    assert all(len(segment.token_ids) <= limit for segment in segments)
    assert episode.answer is None or isinstance(episode.answer, str)
    assert len(episode.steps) <= 7
