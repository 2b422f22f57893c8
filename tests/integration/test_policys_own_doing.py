"""What a policy brings about itself stays as its failure; what it calls is on record."""

import asyncio
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.prompt import PromptTemplate
from actors.agent.token_conversation import TokenConversation
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.tools.tool import FunctionTool
from common.chat import ChatRenderer
from common.config import Agent, Kernel
from common.wire.records import Outcome, Task
from tests.scripted_agent import TOKENIZER, ScriptedPolicy

pytestmark = pytest.mark.sandbox
Play = Callable[..., Episode]
IN_THREAD = "import threading, time\ndef start(f, *a): threading.Thread(target=f, args=a).start()\n"


async def slow(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "done"


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pool = KernelPool(make_launcher(Kernel(grace_s=0.4, preload_numpy=False)), idle=2)
        runner.run(pool.start())
        yield lambda *cells, **agent: runner.run(_play(pool, cells, **agent))
        runner.run(pool.close())


async def _play(pool: KernelPool, cells: tuple[str, ...], **agent: Any) -> Episode:
    chosen = Agent(
        **{
            "max_steps": len(cells),
            "max_action_tokens": 400,
            "episode_timeout_s": 20.0,
            "tools": ("slow", "notepad", "context", "submit_final_answer"),
            **agent,
        }
    )
    actions = (f"<think>so</think><code>{textwrap.dedent(cell)}</code>" for cell in cells)
    conversation = TokenConversation(
        policy=ScriptedPolicy(*actions),  # type: ignore[arg-type]
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=6000,
        temperature=1.0,
    )
    loop = AgentLoop(
        agent=chosen,
        kernels=pool,
        tools={"slow": FunctionTool(slow)},
        prompt=PromptTemplate(""),
        cell_timeout_s=5.0,
    )
    task = Task(task_id="t", question="?", answers=("x",))
    return await loop.run(task, conversation)


@pytest.mark.parametrize(
    ("cell", "outcome"),
    [
        ("for _ in range(30): start(slow, 9)\ntime.sleep(9)", Outcome.TIMED_OUT),
        ("start(slow, 9)\ntime.sleep(9)", Outcome.TIMED_OUT),
        ("slow(0.4)\ntime.sleep(9)", Outcome.TIMED_OUT),
        ("slow(9)", Outcome.INFRASTRUCTURE),
    ],
    ids=["beside many calls", "beside one call", "after a call", "waits for the tool"],
)
def test_only_a_cell_that_does_nothing_but_wait_for_a_slow_tool_is_dropped(
    play: Play, cell: str, outcome: Outcome
) -> None:
    episode = play(IN_THREAD + cell, episode_timeout_s=0.6)

    assert episode.outcome is outcome, episode.failure
    assert bool(episode.failure) is (outcome is Outcome.INFRASTRUCTURE)


def test_calls_of_a_cell_that_took_its_kernel_along_are_on_record(play: Play) -> None:
    episode = play("notepad.read()\nimport os\nos._exit(1)", "1")

    assert episode.outcome is Outcome.KERNEL_DIED
    assert [step.tool_calls for step in episode.steps] == [("notepad.read",)]


def test_large_arguments_are_refused_before_anything_looks_at_them(play: Play) -> None:
    episode = play(
        "marks = 'a\\u0301\\u0316' * 100_000",
        "notepad.add_fact(marks)",
        "notepad.write_draft([[marks]])",
        "context.replace(0, text=marks)",
        "slow({marks: 1})",
        "context.drop([0] * 12_000)",
        "notepad.add_fact('x' * 300)",
    )

    observations = [step.observation for step in episode.steps]
    assert all("takes at most 10,000 characters of text" in text for text in observations[1:-1])
    assert episode.steps[-1].status == "ok"
    assert episode.notepad == "Facts:\n- " + "x" * 300


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("'é' * 1_000_00", "é" * (1 << 15)),
        ("'a' * 900_000", "a" * (1 << 16)),
        ("b'Port Alden'", "Port Alden"),
        ("None", None),
    ],
    ids=["two bytes", "large", "bytes", "None"],
)
def test_an_answer_is_text_of_at_most_64_kib(
    play: Play, expression: str, answer: str | None
) -> None:
    episode = play(f"submit_final_answer({expression})")

    assert episode.answer == answer
    if answer is None:
        assert "ValueError: the answer is None" in episode.steps[0].observation


def test_no_call_reaches_an_episode_that_is_over(play: Play) -> None:
    started = time.monotonic()
    late = "def late():\n    while True: slow(0.01)\n"
    episode = play(IN_THREAD + late + "for _ in range(3): start(late)\ntime.sleep(0.1)")

    assert episode.outcome is Outcome.OUT_OF_STEPS
    assert 1 <= len(episode.steps[0].tool_calls) <= 64
    assert time.monotonic() - started < 20
