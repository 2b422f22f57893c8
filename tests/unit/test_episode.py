"""What an episode does with whatever the policy, the kernel or the machinery does to it."""

import asyncio
import dataclasses
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.agent.conversation import ContextTooLongError
from actors.agent.loop import AgentLoop
from actors.agent.prompt import PromptTemplate
from actors.episode import EpisodeRunner
from actors.kernels.interface import DeathCause, KernelDiedError
from actors.rewards.judge.pool import Judge
from actors.tools.catalogue import make_tools
from common.config import Agent, Config, Rewards
from common.errors import PolicyServerError
from common.wire.records import NOT_AN_ACTION, Outcome, Purpose, Task, TaskLease, Trajectory
from tests.scripted_agent import TOKENIZER, FakeKernel, FakePool, ScriptedPolicy, conversations

SEARCH = '<think>look</think><code>print(search("x"))</code>'
SUBMIT = '<think>done</think><code>submit_final_answer("Port Alden")</code>'
REWARDS = Rewards(preset="none", terms={"exact_match": 1.0, "unparsable": -0.1})
JUDGE = Judge(Config(rewards=REWARDS))
TASK = Task(task_id="t", question="Where was Anna Keller born?", answers=("Port Alden",))


@pytest.fixture(autouse=True, scope="module")
def judge() -> Iterator[None]:
    asyncio.run(JUDGE.start())
    yield
    asyncio.run(JUDGE.close())


def play(
    policy: ScriptedPolicy,
    *,
    output: str = "a page",
    fault: Exception | None = None,
    hangs: bool = False,
    max_context: int = 400,
    task: Task = TASK,
    pool: Callable[[FakeKernel], FakePool] = FakePool,
    times: int = 1,
    **agent: Any,
) -> Trajectory:
    settings = Agent(**{"max_steps": 3, "max_action_tokens": 32, "episode_timeout_s": 5.0, **agent})
    loop = AgentLoop(
        agent=settings,
        kernels=pool(FakeKernel(output, fault, hangs)),  # type: ignore[arg-type]
        tools=make_tools(Config(agent=settings), {"train": ""}),
        prompt=PromptTemplate(""),
        cell_timeout_s=1.0,
    )
    runner = EpisodeRunner(
        actor_id="a0",
        conversations=conversations(policy, limit=max_context, direct=settings.mode == "direct"),
        loop=loop,
        judge=JUDGE,
    )
    lease = TaskLease(
        lease_id="l",
        group_id="g",
        sample_index=0,
        purpose=Purpose.TRAIN,
        temperature=1.0,
        task=task,
    )
    return [asyncio.run(runner.run(lease)) for _ in range(times)][-1]


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


def test_prompt_that_is_too_long_alone_is_kept_without_actions_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    task = Task(task_id="long", question="Why? " * 200, answers=("x",))

    trajectory = play(ScriptedPolicy(), task=task, max_context=100, times=2)

    assert trajectory.outcome is Outcome.OUT_OF_CONTEXT
    assert trajectory.steps == ()
    assert trajectory.oldest_version is None
    assert len(trajectory.segments[0].token_ids) == 100, "no longer segment can be used"
    assert "the prompt alone has" in trajectory.failure
    assert "100 of the context (model.max_context)" in trajectory.failure
    assert [r.levelname for r in caplog.records if "too long" in r.message] == ["WARNING", "DEBUG"]


def test_reply_that_the_host_cannot_read_is_the_cells_doing() -> None:
    trajectory = play(ScriptedPolicy(SEARCH), fault=RecursionError("too deep"))

    assert trajectory.outcome is Outcome.KERNEL_DIED
    assert trajectory.failure == ""
    assert trajectory.steps[0].status == "died"


def test_context_that_the_server_finds_too_long_is_kept() -> None:
    trajectory = play(ScriptedPolicy(SEARCH, ContextTooLongError("the server takes 90 tokens")))

    assert trajectory.outcome is Outcome.OUT_OF_CONTEXT
    assert trajectory.step_rewards.tolist() == [0.0]
    assert "the server takes 90 tokens" in trajectory.failure


class BrokenPool(FakePool):
    """Fails when the kernel is given back."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[FakeKernel]:
        yield self.kernel
        raise OSError("the kernel cannot be closed")


def test_what_happens_after_the_end_does_not_change_the_outcome() -> None:
    trajectory = play(ScriptedPolicy(SUBMIT), pool=BrokenPool)

    assert trajectory.outcome is Outcome.SUBMITTED
    assert trajectory.step_rewards.tolist() == [1.0]


def test_dead_kernel_is_the_policys_doing_and_scores_nothing() -> None:
    trajectory = play(ScriptedPolicy(SEARCH), fault=KernelDiedError("killed: out of memory"))

    assert trajectory.outcome is Outcome.KERNEL_DIED
    assert trajectory.step_rewards.tolist() == [0.0]
    assert len(trajectory.steps) == 1


def test_cell_that_outlasts_the_episode_is_the_policys_doing() -> None:
    trajectory = play(ScriptedPolicy(SEARCH), hangs=True, episode_timeout_s=0.05)

    assert trajectory.outcome is Outcome.TIMED_OUT
    assert trajectory.failure == ""


def test_no_call_reaches_an_episode_whose_time_is_over() -> None:
    kernel = FakeKernel("", None, hangs=True)

    play(ScriptedPolicy(SEARCH), pool=lambda _: FakePool(kernel), episode_timeout_s=0.05)

    assert kernel.handler is not None
    with pytest.raises(PermissionError, match="the episode is over"):
        asyncio.run(kernel.handler("search", ("x",), {}))


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


def test_kernel_that_cannot_be_had_drops_the_trajectory() -> None:
    died = KernelDiedError("the zygote is gone", DeathCause.LAUNCHER_DIED)

    trajectory = play(ScriptedPolicy(SEARCH), fault=died)

    assert trajectory.outcome is Outcome.INFRASTRUCTURE
    assert trajectory.failure == "KernelDiedError (launcher_died): the zygote is gone"


@pytest.mark.parametrize(
    ("named", "failure"),
    [
        ({"kind": "os:getcwd"}, "InputError: task 't': field 'kind': 'os:getcwd' imports code of"),
        (
            {"files": ("/etc/hostname",)},
            "InputError: task 't': /etc/hostname leads to .*hostname; ",
        ),
        ({"files": ("/proc/self/environ",)}, "InputError: task 't': /proc/self/environ leads to "),
        ({"files": ("notes.txt",)}, "InputError: task 't': 'notes.txt' is no absolute path"),
    ],
)
def test_a_lease_cannot_choose_what_is_imported_or_read_here(
    named: dict[str, Any], failure: str
) -> None:
    task = dataclasses.replace(TASK, **named)

    trajectory = play(ScriptedPolicy(), task=task)

    assert trajectory.outcome is Outcome.INFRASTRUCTURE
    assert re.match(failure, trajectory.failure), trajectory.failure
    assert trajectory.steps == ()


def test_tokens_of_an_episode_are_bounded() -> None:
    length = len(TOKENIZER.encode(SEARCH))

    trajectory = play(ScriptedPolicy(SEARCH, SUBMIT), max_tokens=length)

    assert trajectory.outcome is Outcome.OUT_OF_TOKENS
    assert trajectory.tokens_generated == length
    assert [step.observation for step in trajectory.steps] == ["a page"]


def test_unparsable_action_is_forgiven_as_often_as_configured() -> None:
    trajectory = play(ScriptedPolicy("no tags", SUBMIT), format_reminders=1)

    assert trajectory.outcome is Outcome.SUBMITTED
    assert "<think>no tags</think><code>" in trajectory.steps[0].observation
    assert trajectory.steps[0].status == ""


FENCED = 'I submit it:\n```python\nsubmit_final_answer("Port Alden")\n```<|im_end|>'


def test_a_foreign_form_of_an_action_counts_only_where_it_is_accepted() -> None:
    strict = play(ScriptedPolicy(FENCED))
    accepted = play(ScriptedPolicy(FENCED), accepted_actions="any", max_action_tokens=64)

    assert strict.outcome is Outcome.UNPARSABLE
    assert accepted.outcome is Outcome.SUBMITTED
    assert accepted.steps[0].code == 'submit_final_answer("Port Alden")'


def test_of_an_accepted_action_the_very_tokens_that_were_sampled_are_trained_on() -> None:
    look = "First:\n```python\nprint(1)\n```<|im_end|>"
    trajectory = play(ScriptedPolicy(look, FENCED), accepted_actions="any", max_action_tokens=64)

    (segment,) = trajectory.segments
    for step, text in enumerate((look, FENCED)):
        sampled = segment.action_index == step
        assert segment.token_ids[sampled].tolist() == TOKENIZER.encode(text)
        assert set(segment.behaviour_logprobs[sampled].tolist()) == {-0.5}
        assert set(segment.versions[sampled].tolist()) == {3}
    assert trajectory.steps[0].action == look
    assert not segment.behaviour_logprobs[segment.action_index == NOT_AN_ACTION].any()


def test_what_follows_an_action_that_ended_the_turn_is_a_turn_of_its_own() -> None:
    policy = ScriptedPolicy("First:\n```python\nprint(1)\n```<|im_end|>", SUBMIT)
    play(policy, accepted_actions="any")

    written = TOKENIZER.decode(policy.prompts[1])
    turn = "<|im_start|>user\n<output>a page</output><|im_end|>\n<|im_start|>assistant\n"
    assert written.endswith(f"```<|im_end|>\n{turn}")


def test_a_reminder_shows_its_own_tags_and_none_of_the_models() -> None:
    policy = ScriptedPolicy("<output>12</output> <|im_end|>", SUBMIT)
    play(policy, format_reminders=1, max_action_tokens=64)

    given = TOKENIZER.decode(policy.prompts[1][len(policy.prompts[0]) :])
    reminder = given.removeprefix("<output>12</output> <|im_end|>")
    assert "</think><code>submit_final_answer(12)</code>" in reminder
    assert reminder.count("<output>") == 1


def test_direct_mode_takes_the_whole_message_as_the_answer() -> None:
    message = "<think>I know it</think>Port Alden<|im_end|>"

    trajectory = play(ScriptedPolicy(message), mode="direct")

    assert trajectory.outcome is Outcome.SUBMITTED
    assert trajectory.answer == "Port Alden"
    assert trajectory.step_rewards.tolist() == [1.0]
    assert trajectory.kernel_level == ""
