"""What the agent may do to its own context, and what of it stays out of its reach."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.prompt import PromptTemplate
from actors.agent.token_conversation import TokenConversation
from actors.kernels.interface import CellResult, CellStatus
from actors.kernels.tool_specs import ToolSpec
from actors.tools.catalogue import make_tools
from common.chat import ChatRenderer
from common.config import Agent, Config
from common.wire.records import NOT_AN_ACTION, Outcome, Segment, Task
from tests.scripted_agent import TOKENIZER, FakePool, ScriptedPolicy

TASK = Task(task_id="t", question="Where was Anna Keller born?", answers=("Port Alden",))
SYSTEM = "You work in a notebook."
Call = Callable[..., Awaitable[Any]]
Cell = Callable[[Call], Awaitable[str]]


class CellsKernel:
    """Runs cell number n as the n-th coroutine function, which may call tools."""

    kernel_id, level, alive = "k", "none", True

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)

    def bind_tools(self, tools: Sequence[ToolSpec], handler: Call) -> None:
        async def call(name: str, *arguments: Any, **keywords: Any) -> Any:
            return await handler(name, arguments, keywords)

        self.call = call

    async def execute(self, code: str, **_: Any) -> CellResult:
        output = await self.cells.pop(0)(self.call)
        return CellResult(
            status=CellStatus.OK, output=output, dropped_bytes=0, error_name=None, seconds=0.0
        )


def action(number: int) -> str:
    return f"<think>step {number}</think><code>x{number} = {number}</code>"


def says(text: str) -> Cell:
    async def cell(call: Call) -> str:
        return text

    return cell


@dataclasses.dataclass
class Played:
    episode: Episode
    segments: tuple[Segment, ...]
    prompts: list[list[int]]

    def texts(self) -> list[str]:
        return [TOKENIZER.decode(segment.token_ids.tolist()) for segment in self.segments]


def play(cells: Sequence[Cell], *, limit: int = 400, **agent: Any) -> Played:
    policy = ScriptedPolicy(*(action(number) for number in range(len(cells))))
    agent = {"max_steps": len(cells), **agent}
    return play_with(CellsKernel(cells), policy, limit=limit, **agent)


def play_with(
    kernel: CellsKernel, policy: ScriptedPolicy, *, limit: int = 400, **agent: Any
) -> Played:
    tools = ("notepad", "planning", "context", "submit_final_answer")
    chosen = Agent(**{"max_action_tokens": 40, "tools": tools, **agent})
    conversation = TokenConversation(
        policy=policy,  # type: ignore[arg-type]
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=limit,
        temperature=1.0,
    )
    loop = AgentLoop(
        agent=chosen,
        kernels=FakePool(kernel),  # type: ignore[arg-type]
        tools=make_tools(Config(agent=chosen), {}),
        prompt=PromptTemplate(SYSTEM),
        cell_timeout_s=1.0,
    )
    episode = asyncio.run(loop.run(TASK, conversation))
    return Played(episode, conversation.segments(), policy.prompts)


class CallingPolicy(ScriptedPolicy):
    """Calls a tool out of the kernel while it samples, as a thread of an earlier cell would."""

    def __init__(self, kernel: CellsKernel, *actions: str) -> None:
        super().__init__(*actions)
        self.kernel = kernel

    async def generate(self, prompt_ids: Sequence[int], **options: Any) -> Any:
        if self.prompts:
            await self.kernel.call("notepad.add_fact", f"fact {len(self.prompts)}")
        return await super().generate(prompt_ids, **options)


def test_calls_between_and_after_cells_belong_to_the_cell_that_ran_last() -> None:
    async def reads(call: Call) -> str:
        return str(await call("notepad.read"))

    kernel = CellsKernel([says("one"), reads])
    policy = CallingPolicy(kernel, action(0), "no action", action(1), "no action")

    episode = play_with(kernel, policy, max_steps=5, format_reminders=1).episode

    assert episode.outcome is Outcome.UNPARSABLE
    assert [step.tool_calls for step in episode.steps] == [
        ("notepad.add_fact", "notepad.add_fact"),
        (),
        ("notepad.read", "notepad.add_fact"),
        (),
    ]


def sampled_ids(segment: Segment) -> dict[int, list[int]]:
    steps = set(segment.action_index.tolist()) - {NOT_AN_ACTION}
    return {step: segment.token_ids[segment.action_index == step].tolist() for step in steps}


def test_dropped_and_replaced_steps_are_not_in_the_next_prompt() -> None:
    async def tidy(call: Call) -> str:
        await call("context.replace", 1, "page two said: Port Alden")
        return str(await call("context.drop", 0))

    played = play([says("first page"), says("second page"), tidy, says("end")])

    last = TOKENIZER.decode(played.prompts[-1])
    assert "step 0" not in last
    assert "second page" not in last
    assert "<output>page two said: Port Alden</output>" in last
    assert len(played.segments) == 2
    assert "first page" in played.texts()[0]


def test_context_shows_what_the_policy_sees_and_counts_tokens() -> None:
    seen: dict[str, Any] = {}

    async def look(call: Call) -> str:
        for name in ("messages", "tokens", "limit", "left"):
            seen[name] = await call(f"context.{name}")
        return ""

    played = play([says("a page"), look])

    roles = [(m["step"], m["role"], m["text"]) for m in seen["messages"]]
    assert roles == [
        (None, "system", SYSTEM),
        (None, "task", TASK.question),
        (0, "action", action(0)),
        (0, "output", "a page"),
        (1, "action", action(1)),
    ]
    assert seen["tokens"] == len(played.segments[0].token_ids)
    assert seen["limit"] - seen["left"] == seen["tokens"]


def test_whole_output_of_a_step_can_be_read_again() -> None:
    read: list[str] = []

    async def again(call: Call) -> str:
        read.append(await call("context.output", 0))
        return ""

    played = play([says("long " * 50), again], max_observation_characters=20)

    assert read == ["long " * 50]
    assert "more characters in context.output(0)" in played.episode.steps[0].observation


def test_a_progress_bar_is_shown_as_it_ends_and_hides_nothing() -> None:
    bar = "".join(f"\rstep {number} of 99" for number in range(100))

    played = play([says(f"begin\n{bar}\nresult"), says("x")], max_observation_characters=40)

    assert played.episode.steps[0].observation == "begin\nstep 99 of 99\nresult"


def test_both_ends_of_a_long_output_are_shown_and_the_rest_can_be_read() -> None:
    played = play([says("a" * 500 + "\nError: b"), says("x")], max_observation_characters=40)

    assert played.episode.steps[0].observation == (
        f"{'a' * 25}\n…\n{'a' * 3}\nError: b [472 more characters in context.output(0)]"
    )


@pytest.mark.parametrize("step", [-1, 1, 7, "0", None])
def test_only_earlier_steps_can_be_changed(step: Any) -> None:
    errors: list[str] = []

    async def change(call: Call) -> str:
        try:
            await call("context.drop", step)
        except ValueError as error:
            errors.append(str(error))
        return ""

    played = play([says("a page"), change, says("")])

    assert errors == [f"step {step!r} is not among the earlier steps in context: 0"]
    assert len(played.segments) == 1


def test_segments_of_an_episode_are_bounded() -> None:
    errors: list[str] = []

    async def drop_all(call: Call) -> str:
        messages = await call("context.messages")
        earlier = sorted({m["step"] for m in messages if m["step"] is not None})[:-1]
        try:
            await call("context.drop", earlier)
        except PermissionError as error:
            errors.append(str(error))
        return ""

    played = play([says("page"), *[drop_all] * 4], max_segments=2)

    assert len(played.segments) == 2
    assert len(errors) == 3


def test_notepad_stays_through_a_hard_trim() -> None:
    async def plan(call: Call) -> str:
        await call("planning", ["look Anna up", "answer"])
        await call("notepad.set_status", 1, "done")
        await call("notepad.add_fact", "born in Port Alden")
        return ""

    long = says("page " * 60)
    played = play([plan, long, long, long, says("")], trim="hard")

    assert len(played.segments) > 1
    for text in played.texts()[1:]:
        assert "Your notepad:\nTo do:\n1. [x] look Anna up\n2. [ ] answer" in text
        assert "- born in Port Alden" in text
        assert "step 0" not in text
    assert played.episode.outcome is Outcome.OUT_OF_STEPS


def test_change_of_the_notepad_is_shown_once_in_the_observation() -> None:
    async def note(call: Call) -> str:
        await call("notepad.add_fact", "the sea is near")
        return "done"

    played = play([note, says("page")], max_steps=3)

    assert played.episode.steps[0].observation == "done\n[notepad]\nFacts:\n- the sea is near"
    assert played.episode.steps[1].observation == "page"


def test_soft_trim_keeps_the_latest_steps() -> None:
    page = says("page " * 16)

    played = play([page] * 9, trim="soft", limit=300)

    newest = played.texts()[-1]
    assert len(played.segments) > 1
    assert "step 0" not in newest
    assert "step 8" in newest
    assert "step 7" in newest


def test_without_trim_a_full_context_ends_the_episode() -> None:
    played = play([says("page " * 60)] * 9, trim="none", limit=300)

    assert played.episode.outcome is Outcome.OUT_OF_CONTEXT
    assert len(played.segments) == 1


def test_notepad_refuses_more_than_it_holds() -> None:
    errors: list[str] = []

    async def fill(call: Call) -> str:
        for _ in range(10):
            try:
                await call("notepad.add_fact", "x" * 30)
            except ValueError as error:
                errors.append(str(error))
        return ""

    play([fill], notepad_characters=100)

    assert len(errors) >= 7
    assert errors[0].startswith("the notepad holds 100 characters and ")


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["none", "drop", "replace", "fact", "draft"]),
        st.integers(0, 8),
        st.text(alphabet="ab <>/cdeothinkupö\n", max_size=40),
        st.integers(0, 300),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=120, deadline=None)
@given(EDITS, st.sampled_from(["none", "soft", "hard"]), st.integers(150, 500))
def test_no_edit_touches_what_is_recorded_for_training(
    edits: list[tuple[str, int, str, int]], trim: str, limit: int
) -> None:
    def cell(kind: str, step: int, text: str, length: int) -> Cell:
        async def run(call: Call) -> str:
            names = {"fact": "notepad.add_fact", "draft": "notepad.write_draft"}
            try:
                if kind == "drop":
                    await call("context.drop", step)
                elif kind == "replace":
                    await call("context.replace", step, text)
                elif kind in names:
                    await call(names[kind], text)
            except (ValueError, PermissionError):
                pass
            return ("word " * 60)[:length]

        return run

    played = play([cell(*edit) for edit in edits], trim=trim, limit=limit, notepad_characters=200)

    assert played.episode.outcome in (Outcome.OUT_OF_STEPS, Outcome.OUT_OF_CONTEXT)
    recorded: dict[int, list[int]] = {}
    starts: list[list[int]] = []
    for segment in played.segments:
        own = sampled_ids(segment)
        assert not own.keys() & recorded.keys(), "an action was recorded twice"
        recorded |= own
        assert len(segment.token_ids) <= limit
        assert np.all(segment.behaviour_logprobs[segment.action_index != NOT_AN_ACTION] == -0.5)
        ids = segment.token_ids.tolist()
        text = TOKENIZER.decode(ids)
        assert text.startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        assert TASK.question in text.split("<|im_end|>")[1]
        starts += [ids[: segment.action_index.tolist().index(step)] for step in sorted(own)]
    assert recorded == {n: TOKENIZER.encode(action(n)) for n in range(len(played.episode.steps))}
    assert starts == played.prompts, "the learner sees another context than the policy saw"
