"""The agent's tools as a cell sees them: real kernels, real tools, a scripted policy."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.prompt import load_template
from actors.agent.token_conversation import TokenConversation
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.tools.catalogue import make_tools
from common.chat import ChatRenderer
from common.config import Agent, Config, Kernel
from common.wire.records import Outcome, Task
from tests.scripted_agent import TOKENIZER, ScriptedPolicy

pytestmark = pytest.mark.sandbox
TOOLS = ("notepad", "planning", "context", "submit_final_answer")
KERNEL = Kernel(grace_s=0.4, idle=1, preload_numpy=False)


def play(cells: list[str], task: Task, **agent: Any) -> tuple[Episode, TokenConversation]:
    chosen = Agent(
        **{
            "max_steps": len(cells),
            "max_action_tokens": 200,
            "max_observation_characters": 300,
            "tools": TOOLS,
            "system_prompt": "notebook",
            **agent,
        }
    )
    actions = [f"<think>next</think><code>{cell}</code>" for cell in cells]
    conversation = TokenConversation(
        policy=ScriptedPolicy(*actions),  # type: ignore[arg-type]
        renderer=ChatRenderer(TOKENIZER),
        tokenizer=TOKENIZER,
        limit=6000,
        temperature=1.0,
    )

    async def run() -> Episode:
        pool = KernelPool(make_launcher(KERNEL), idle=1)
        await pool.start()
        try:
            loop = AgentLoop(
                agent=chosen,
                kernels=pool,
                tools=make_tools(Config(agent=chosen), {}),
                prompt=load_template(chosen.system_prompt),
                cell_timeout_s=5.0,
            )
            return await loop.run(task, conversation)
        finally:
            await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run()), conversation


def test_agent_works_with_files_notepad_and_its_own_context(tmp_path: Path) -> None:
    attached = tmp_path / "towns.csv"
    attached.write_text("name,town\nAnna Keller,Port Alden\n")
    task = Task(
        task_id="t", question="Where was Anna Keller born?", answers=("x",), files=(str(attached),)
    )
    episode, conversation = play(
        [
            "planning(['read the file', 'answer'])\nrows = open('towns.csv').read()\nprint(rows)",
            "notepad.set_status(1, 'done')\nnotepad.add_fact('Port Alden')",
            "first = context.messages[2]\nprint(first['role'], context.tokens < context.limit)\n"
            "print(context.drop(0))",
            "print([m['step'] for m in context.messages if m['role'] == 'action'], 'name' in rows)",
            "submit_final_answer(rows.split(',')[-1].strip())",
        ],
        task,
    )

    observations = [step.observation for step in episode.steps]
    assert episode.outcome is Outcome.SUBMITTED, observations
    assert episode.answer == "Port Alden"
    assert episode.kernel_level == "A-forked"
    assert "Anna Keller,Port Alden" in observations[0]
    assert "1. [ ] read the file" in observations[0]
    assert "1. [x] read the file" in observations[1]
    assert observations[2].startswith("notepad True\ndropped 1 steps")
    assert observations[3].startswith("[1, 2, 3] True")
    assert episode.steps[1].tool_calls == ("notepad.set_status", "notepad.add_fact")
    assert len(conversation.segments()) == 2
    first, second = (TOKENIZER.decode(s.token_ids.tolist()) for s in conversation.segments())
    assert "Files of the task in /workspace: towns.csv" in first
    assert "Your notepad:\nTo do:\n1. [x] read the file\n2. [ ] answer\nFacts:" in second


def test_wrong_calls_are_exceptions_in_the_cell_that_name_the_tool() -> None:
    task = Task(task_id="t", question="?", answers=("x",))
    episode, _ = play(
        [
            "notepad.add_todo()",
            "context.tokens = 3",
            "context.drop(5)",
            "help(notepad.set_status)",
            "submit_final_answer('a'); submit_final_answer('b')",
        ],
        task,
    )

    observations = [step.observation for step in episode.steps]
    statuses = [step.status for step in episode.steps]
    assert "TypeError: notepad.add_todo() missing a required argument: 'text'" in observations[0]
    assert "AttributeError" in observations[1]
    assert "ValueError: step 5 is not among the earlier steps in context: 0, 1" in observations[2]
    assert "set_status(number: int, status: Literal['open', 'doing'" in observations[3]
    assert "Mark to-do NUMBER" in observations[3]
    assert episode.answer == "a"
    assert "only the first one counts" in observations[4]
    assert statuses == ["error", "error", "error", "ok", "error"]


def test_output_of_an_episode_and_tool_calls_are_bounded() -> None:
    task = Task(task_id="t", question="?", answers=("x",))
    episode, _ = play(
        [
            "print('a' * 900)",
            "print('b' * 900)",
            "print('c' * 900)",
            "for _ in range(4): notepad.read()",
        ],
        task,
        max_output_bytes=1000,
        max_observation_characters=2000,
        max_tool_calls=3,
    )

    observations = [step.observation for step in episode.steps]
    assert observations[0] == "a" * 900
    assert observations[1].count("b") < 200
    assert "bytes of output dropped" in observations[1]
    assert "c" * 10 not in observations[2]
    assert len(episode.steps[3].tool_calls) == 3
    assert "error" in episode.steps[3].status


def test_missing_attachment_drops_the_episode_and_names_the_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "gone.pdf")
    task = Task(task_id="t", question="?", answers=("x",), files=(missing,))

    episode, _ = play(["1"], task)

    assert episode.outcome is Outcome.INFRASTRUCTURE
    assert missing in episode.failure


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("2 ** 89", str(2**89)),
        ("__import__('numpy').int64(7)", "7"),
        ("__import__('fractions').Fraction(1, 3)", "1/3"),
        ("[1, 'two']", "[1, 'two']"),
    ],
)
def test_whatever_a_cell_computes_can_be_submitted(expression: str, answer: str) -> None:
    task = Task(task_id="t", question="?", answers=("x",))

    episode, _ = play([f"submit_final_answer({expression})"], task)

    assert episode.answer == answer, episode.steps


def test_arguments_that_cannot_be_sent_are_refused_in_the_cell() -> None:
    task = Task(task_id="t", question="?", answers=("x",))

    episode, _ = play(
        ["notepad.add_fact(2 ** 89)", "notepad.add_fact('a' * 2_000_000)", "notepad.add_fact({1})"],
        task,
    )

    observations = [step.observation for step in episode.steps]
    assert "TypeError: notepad.add_fact() takes text, bytes, numbers up to 64" in observations[0]
    assert "ValueError: notepad.add_fact() takes at most" in observations[1]
    assert "TypeError: notepad.add_fact() takes text" in observations[2]
    assert episode.outcome is Outcome.OUT_OF_STEPS
