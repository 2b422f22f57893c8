"""The benchmark of the agent compares what it says, and reads short answers out of texts."""

import asyncio
from pathlib import Path

import pytest

from actors.agent.events import Episode, EpisodeListener
from actors.agent.prompt import load_template
from benchmarks.agent.measures import measure_variant, short_answer
from benchmarks.agent.variants import PROMPTS, Limits, read_variant
from common.errors import ConfigError
from common.wire.records import Outcome, Step, Task

TASK = Task(task_id="t", question="How many?", answers=("4",), kind="number")
FENCE = "So:\n```python\nprint(4)\n```"


@pytest.mark.parametrize(
    ("text", "number", "answer"),
    [
        ("2 + 2 is 4.\nAnswer: 4", True, "4"),
        ("Answer: 3\nNo.\nAnswer: $1,234.50 dollars.", True, "1,234.50"),
        ("It takes 5 days and 12 hours", True, "12"),
        ("I do not know", True, "I do not know"),
        ("She was born there.\n**Answer:** Port Alden.", False, "Port Alden"),
        ("She was born there.\nPort Alden", False, "Port Alden"),
    ],
)
def test_a_short_answer_is_read_behind_its_mark_or_at_the_end(
    text: str, number: bool, answer: str
) -> None:
    assert short_answer(text, number=number) == answer


@pytest.mark.parametrize("path", sorted(PROMPTS.glob("*.md.j2")), ids=lambda path: path.name)
def test_every_prompt_that_is_compared_can_be_rendered(path: Path) -> None:
    variant = read_variant(f"{path.name.removesuffix('.md.j2')}+notepad")
    agent = variant.config(Limits(max_steps=3)).agent

    assert agent.tools == ("notepad", "submit_final_answer")
    assert load_template(agent.system_prompt).render(agent, [])


def test_a_prompt_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="--prompt nosuch"):
        read_variant("nosuch+search")


def test_direct_mode_has_no_prompt_and_no_notebook() -> None:
    agent = read_variant("direct").config(Limits()).agent

    assert (agent.mode, agent.system_prompt) == ("direct", "")


def test_strict_and_accepted_actions_are_told_apart() -> None:
    async def run(task: Task, listener: EpisodeListener | None) -> Episode:
        assert listener is not None
        for number, text in enumerate((FENCE, "<think>a</think><code>x", "4")):
            listener.on_delta(number, text)
        steps = (action("print(4)"), action("x"), action(None))
        return Episode(outcome=Outcome.SUBMITTED, answer="4.0", steps=steps, tokens_generated=12)

    measured = asyncio.run(measure_variant(read_variant("shipped"), [TASK], run, in_flight=2))

    figures = measured.figures()
    assert figures["strict_percent"] == pytest.approx(100 / 3)
    assert figures["accepted_percent"] == pytest.approx(200 / 3)
    assert (figures["right_percent"], figures["tokens_per_task"]) == (100, 12)


def action(code: str | None) -> Step:
    return Step(action="", code=code, observation="", finish_reason="stop", tokens=4)
