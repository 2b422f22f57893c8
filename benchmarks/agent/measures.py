"""Runs tasks through the agent and keeps what each came to."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from actors.agent.direct.reading import direct_answer
from actors.agent.direct.wording import ask_directly
from actors.agent.events import Episode
from actors.rewards.task_types import measure_answer
from benchmarks.agent.agents import Runs
from benchmarks.agent.variants import Variant
from common.chat import ACTION_END, parse_action
from common.json_output import json_text
from common.wire.records import Step, Task


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One task done once.

    Attributes:
        actions: sampled; ``accepted`` of them as read.
        heard: of which it is known how they were sampled; ``strict`` of them in the grammar.
        answer: submitted; None for none.
        right: whether it is a gold answer.
    """

    task_id: str
    outcome: str
    actions: int
    heard: int
    strict: int
    accepted: int
    answer: str | None
    right: bool
    tokens: int
    failure: str = ""


@dataclass
class Follower:
    """Hears what the model writes before anything is read into it."""

    written: dict[int, str] = field(default_factory=dict)

    def on_delta(self, step: int, text: str) -> None:
        self.written[step] = self.written.get(step, "") + text

    def on_action(self, step: int, text: str, code: str | None) -> None:
        pass

    def on_step(self, number: int, step: Step) -> None:
        pass

    @property
    def strict(self) -> int:
        """Actions in the grammar; servers leave out the end that stopped them."""
        return sum(
            parse_action(text) is not None or parse_action(text + ACTION_END) is not None
            for text in self.written.values()
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All attempts of one variant, and how long they took together."""

    attempts: tuple[Attempt, ...]
    seconds: float

    def figures(self) -> dict[str, float | None]:
        """Shares in percent of all actions, or of all tasks."""
        n, actions = len(self.attempts), sum(one.actions for one in self.attempts)

        def share(name: str, of: int) -> float | None:
            return 100 * sum(getattr(one, name) for one in self.attempts) / of if of else None

        submitted = sum(one.answer is not None for one in self.attempts)
        return {
            "strict_percent": share("strict", sum(one.heard for one in self.attempts)),
            "accepted_percent": share("accepted", actions),
            "submitted_percent": 100 * submitted / n,
            "right_percent": share("right", n),
            "actions_per_task": actions / n,
            "tokens_per_task": sum(one.tokens for one in self.attempts) / n,
            "seconds": self.seconds,
        }


async def measure_variant(
    variant: Variant,
    tasks: Sequence[Task],
    run: Runs,
    *,
    in_flight: int,
    transcripts: Path | None = None,
) -> Measured:
    """Do every task once, at most ``in_flight`` at a time.

    Args:
        variant: the way to do it.
        tasks: as their file has them.
        run: runs an episode of that variant.
        in_flight: episodes at once.
        transcripts: file that gets a line for each episode.
    """
    places = asyncio.Semaphore(in_flight)
    started = time.monotonic()

    async def one(task: Task) -> Attempt:
        async with places:
            return await _attempt(run, variant, task, transcripts)

    attempts = await asyncio.gather(*(one(task) for task in tasks))
    return Measured(attempts=tuple(attempts), seconds=time.monotonic() - started)


async def _attempt(run: Runs, variant: Variant, task: Task, transcripts: Path | None) -> Attempt:
    question = await ask_directly(task, task.question) if variant.is_direct else task.question
    follower = Follower()
    episode = await run(replace(task, question=question), None if variant.is_direct else follower)
    answer = episode.answer
    if variant.is_direct and answer is not None:
        answer = direct_answer(answer, task.kind)
    attempt = Attempt(
        task_id=task.task_id,
        outcome=episode.outcome.value,
        actions=len(episode.steps),
        heard=len(follower.written),
        strict=follower.strict,
        accepted=sum(step.code is not None for step in episode.steps),
        answer=answer,
        right=measure_answer(task, answer)["exact_match"] == 1.0,
        tokens=episode.tokens_generated,
        failure=episode.failure,
    )
    if transcripts is not None:
        _write(transcripts, variant, attempt, episode, follower)
    return attempt


def _write(
    path: Path, variant: Variant, attempt: Attempt, episode: Episode, follower: Follower
) -> None:
    steps = [
        {
            "written": follower.written.get(n, step.action),
            "code": step.code,
            "end": step.finish_reason,
        }
        | {"shown": step.observation}
        for n, step in enumerate(episode.steps)
    ]
    line = asdict(attempt) | {"variant": variant.name, "steps": steps}
    with path.open("a", encoding="utf-8") as file:
        file.write(json_text(line) + "\n")
