"""Whatever a policy writes, calls and prints, its episode is never dropped as a fault of ours."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.prompt import PromptTemplate
from actors.agent.token_conversation import TokenConversation
from actors.agent.toolbox import ToolSet
from actors.episode import EpisodeRunner
from actors.kernels.interface import CellResult, CellStatus
from actors.kernels.session import KernelSession, SessionLimits
from actors.kernels.tool_specs import ToolSpec
from actors.link import checked_frames
from actors.rewards.judge.pool import Judge
from common.chat import SPECIAL_TOKENS, ChatRenderer
from common.config import Agent, Config
from common.wire.generation import Generation
from common.wire.records import Outcome, Purpose, Segment, Task, TaskLease, Trajectory
from tests.makers import make_trajectory
from tests.scripted_agent import TOKENIZER, FakePool, conversations

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
GIVEN = ("trajectory_id", "task_id", "group_id", "sample_index", "purpose", "actor_id", "scores")
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
    assert checked_frames(
        Trajectory(
            **{name: getattr(make_trajectory(), name) for name in GIVEN},
            outcome=episode.outcome,
            segments=segments,
            step_rewards=np.zeros(len(episode.steps), dtype=np.float32),
            steps=episode.steps,
            answer=episode.answer,
            failure=episode.failure,
        )
    )


ANYTHING = st.integers(-1, 2**64 - 1) | st.integers(0, 3) | st.booleans() | VALUES
REPLIES = st.tuples(st.sampled_from(["ok", "error"]), OUTPUTS | VALUES, ANYTHING, VALUES, ANYTHING)


class AnyWire(asyncio.Transport):
    """A kernel's end of the wire, which says of each cell whatever it likes."""

    def __init__(self, replies: list[tuple[Any, ...]]) -> None:
        super().__init__()
        limits = SessionLimits(grace_s=1.0, output_bytes=1000)
        self.replies, self.cells = replies, 0
        self.session = KernelSession(
            "k", limits, interrupt=self.abort, kill=self.abort, explain=lambda _: self.abort()
        )
        self.session.connection_made(self)

    def write(self, data: Any) -> None:
        if msgpack.unpackb(data[4:])[0] != "exec":
            return
        self.cells += 1
        reply = ["done", self.cells, *self.replies[self.cells % len(self.replies)]]
        body = msgpack.packb(reply, unicode_errors="surrogatepass")
        frame = len(body).to_bytes(4, "big") + body
        asyncio.get_running_loop().call_soon(self.session.data_received, frame)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> Any:
        return None


class WiredKernel:
    """A kernel behind that wire."""

    kernel_id, level, alive = "k", "none", True

    def __init__(self, replies: list[tuple[Any, ...]]) -> None:
        self.session = AnyWire(replies).session

    def bind_tools(self, tools: Sequence[ToolSpec], handler: Any) -> None:
        self.session.bind_tools(tools, handler)

    async def execute(self, code: str, **limits: Any) -> CellResult:
        return await self.session.execute(code, **limits)


@pytest.fixture(scope="module")
def judging() -> Iterator[tuple[asyncio.Runner, Judge]]:
    judge = Judge(Config())
    with asyncio.Runner() as runner:
        runner.run(judge.start())
        yield runner, judge
        runner.run(judge.close())


async def play(replies: list[tuple[Any, ...]], judge: Judge) -> Trajectory:
    runner = EpisodeRunner(
        actor_id="a",
        conversations=conversations(AnyPolicy([]), limit=4000),
        loop=AgentLoop(
            agent=Agent(tools=TOOLS, max_steps=3, max_action_tokens=60),
            kernels=FakePool(WiredKernel(replies)),  # type: ignore[arg-type]
            tools={},
            prompt=PromptTemplate("Work."),
            cell_timeout_s=1.0,
        ),
        judge=judge,
    )
    return await runner.run(
        TaskLease(
            lease_id="l",
            group_id="g",
            sample_index=0,
            purpose=Purpose.TRAIN,
            temperature=1.0,
            task=Task(task_id="t", question="?", answers=("x",)),
        )
    )


@settings(max_examples=25, deadline=None)
@example([("ok", "x", 0, None, True)])
@example([("ok", "x", False, None, 1)])
@given(st.lists(REPLIES, min_size=1, max_size=3))
def test_whatever_a_kernel_says_of_its_cells_the_episode_can_be_sent(
    judging: tuple[asyncio.Runner, Judge], replies: list[tuple[Any, ...]]
) -> None:
    loop, judge = judging
    trajectory = loop.run(play(replies, judge))

    assert trajectory.outcome is not Outcome.INFRASTRUCTURE, trajectory.failure
    assert checked_frames(trajectory)
