"""What an episode does with whatever the policy, the kernel or the machinery does to it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.episode import EpisodeRunner
from actors.kernels.interface import CellResult, CellStatus, KernelDied
from actors.tokenizer import FileTokenizer
from actors.tools.toolbox import NoSearch
from common.chat import ChatRenderer
from common.config import Agent, Rewards
from common.errors import PolicyServerError
from common.generation import Generation
from common.messages import NOT_AN_ACTION, Outcome, Purpose, Task, TaskLease, Trajectory

MODEL = Path(__file__).resolve().parents[2] / "launch" / "presets" / "warmstart"
TOKENIZER = FileTokenizer(MODEL)
SEARCH = '<think>look</think><code>print(search("x"))</code>'
SUBMIT = '<think>done</think><code>submit_final_answer("Port Alden")</code>'
TASK = Task(task_id="t", question="Where was Anna Keller born?", answers=("Port Alden",))


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


class FakeKernel:
    """Prints ``output``; a cell with ``submit`` in it submits, through the bound tool."""

    kernel_id, level, alive = "k", "fake", True

    def __init__(self, output: str, fault: Exception | None, hangs: bool) -> None:
        self.output, self.fault, self.hangs = output, fault, hangs
        self.handler: Callable[..., Awaitable[Any]] | None = None

    def bind_tools(self, names: Sequence[str], handler: Callable[..., Awaitable[Any]]) -> None:
        self.handler = handler

    async def execute(self, code: str, *, timeout_s: float) -> CellResult:
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


def play(
    policy: ScriptedPolicy,
    *,
    output: str = "a page",
    fault: Exception | None = None,
    hangs: bool = False,
    max_steps: int = 3,
    max_context: int = 400,
    task: Task = TASK,
    timeout_s: float = 5.0,
) -> Trajectory:
    runner = EpisodeRunner(
        actor_id="a0",
        policy=policy,  # type: ignore[arg-type]
        kernels=FakePool(FakeKernel(output, fault, hangs)),  # type: ignore[arg-type]
        tokenizer=TOKENIZER,
        renderer=ChatRenderer(TOKENIZER),
        searchers={"train": NoSearch()},
        agent=Agent(max_steps=max_steps, max_action_tokens=32, episode_timeout_s=timeout_s),
        rewards=Rewards(),
        max_context=max_context,
        cell_timeout_s=1.0,
    )
    lease = TaskLease(
        lease_id="l",
        group_id="g",
        sample_index=0,
        purpose=Purpose.TRAIN,
        temperature=1.0,
        task=task,
    )
    return asyncio.run(runner.run(lease))


def test_submitted_answer_is_rewarded_and_tokens_stay_as_sampled() -> None:
    policy = ScriptedPolicy(SEARCH, SUBMIT)

    trajectory = play(policy)

    (segment,) = trajectory.segments
    sampled = segment.token_ids[segment.action_index != NOT_AN_ACTION].tolist()
    assert trajectory.outcome is Outcome.SUBMITTED
    assert trajectory.step_rewards.tolist() == [0.0, 1.0]
    assert sampled == TOKENIZER.encode(SEARCH) + TOKENIZER.encode(SUBMIT)
    assert trajectory.oldest_version == 3
    assert segment.token_ids[: len(policy.prompts[1])].tolist() == policy.prompts[1]
    assert TOKENIZER.decode(policy.prompts[1]).endswith("<output>a page</output>")


def test_action_that_does_not_parse_ends_the_episode_with_a_penalty() -> None:
    trajectory = play(ScriptedPolicy("<think>never closed"))

    assert trajectory.outcome is Outcome.UNPARSABLE
    assert trajectory.step_rewards.tolist() == pytest.approx([-0.1])


def test_episode_without_answer_ends_after_its_steps() -> None:
    trajectory = play(ScriptedPolicy(SEARCH, SEARCH), max_steps=2)

    assert trajectory.outcome is Outcome.OUT_OF_STEPS
    assert trajectory.step_rewards.tolist() == [0.0, 0.0]
    assert trajectory.answer is None


def test_long_output_is_cut_so_that_the_next_action_fits() -> None:
    trajectory = play(ScriptedPolicy(SEARCH, SUBMIT), output="Öl für Kö " * 80, max_context=160)

    assert trajectory.outcome is Outcome.SUBMITTED
    assert len(trajectory.segments[0].token_ids) <= 160


def test_question_that_fills_the_context_is_kept_without_actions() -> None:
    task = Task(task_id="long", question="Why? " * 200, answers=("x",))

    trajectory = play(ScriptedPolicy(), task=task, max_context=100)

    assert trajectory.outcome is Outcome.OUT_OF_CONTEXT
    assert trajectory.steps == ()
    assert trajectory.oldest_version is None


def test_dead_kernel_is_the_policys_doing_and_scores_nothing() -> None:
    trajectory = play(ScriptedPolicy(SEARCH), fault=KernelDied("killed: out of memory"))

    assert trajectory.outcome is Outcome.KERNEL_DIED
    assert trajectory.step_rewards.tolist() == [0.0]
    assert len(trajectory.steps) == 1


def test_cell_that_outlasts_the_episode_is_the_policys_doing() -> None:
    trajectory = play(ScriptedPolicy(SEARCH), hangs=True, timeout_s=0.05)

    assert trajectory.outcome is Outcome.TIMED_OUT
    assert trajectory.failure == ""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (PolicyServerError("gone"), "PolicyServerError: gone"),
        (TimeoutError(), "EpisodeTimeout: .* waiting for the policy server"),
        (RuntimeError("bug"), "RuntimeError: bug"),
    ],
    ids=["server gone", "server too slow", "bug of ours"],
)
def test_failure_of_ours_drops_the_trajectory_and_says_why(error: Exception, failure: str) -> None:
    trajectory = play(ScriptedPolicy(SEARCH, error))

    assert trajectory.outcome is Outcome.INFRASTRUCTURE
    assert re.search(failure, trajectory.failure)


def test_task_of_an_unknown_corpus_fails_alone() -> None:
    task = Task(task_id="t", question="?", answers=("x",), corpus="nowhere")

    trajectory = play(ScriptedPolicy(), task=task)

    assert trajectory.outcome is Outcome.INFRASTRUCTURE
    assert trajectory.failure == "KeyError: 'nowhere'"
