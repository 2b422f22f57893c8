"""The benchmark of the agent compares what it says, and asks directly as `lzero eval` does."""

import asyncio
from pathlib import Path

import pytest

from actors.agent.direct.wording import ask_directly
from actors.agent.events import Episode, EpisodeListener
from actors.agent.prompt import load_template
from benchmarks.agent.measures import measure_variant
from benchmarks.agent.variants import PROMPTS, Limits, read_variant
from common.errors import ConfigError
from common.wire.records import Outcome, Step, Task

TASK = Task(task_id="t", question="How many?", answers=("4",), kind="number")
FENCE = "So:\n```python\nprint(4)\n```"


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


def test_direct_mode_asks_and_reads_as_an_evaluation_does() -> None:
    asked = []

    async def run(task: Task, listener: EpisodeListener | None) -> Episode:
        asked.append(task.question)
        return Episode(
            outcome=Outcome.SUBMITTED,
            answer="2 and 2 is 4.\nAnswer: 4\nThat is 1 number.",
            steps=(action(None),),
            tokens_generated=9,
        )

    measured = asyncio.run(measure_variant(read_variant("direct"), [TASK], run, in_flight=2))

    assert asked == [asyncio.run(ask_directly(TASK, TASK.question))]
    assert measured.attempts[0].answer == "4"
    assert measured.figures()["right_percent"] == 100


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
