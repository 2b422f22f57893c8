"""Asks a model the questions of a job and appends the episodes to a file.

consumes   a job (``common/asking.py``), a configuration, and for a model of ours the plan of a run
produces   one line per finished episode, at once, so that nothing is lost and a later start goes on
waits for  the policy, kernels, the judge, each with the deadlines of an episode
unblocked by  those deadlines; where nothing but failures of the machinery come in, it gives up
"""

import asyncio
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from actors.agent.chat.client import ChatClient
from actors.agent.chat.conversation import ChatConversation
from actors.agent.direct.wording import AskWithPages, Wording, ask_directly
from actors.agent.stand_alone import with_limits_of, with_options
from actors.episode import Conversations, EpisodeRunner
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.tools.started import started_tools
from actors.tools.tool import Tool
from actors.wiring import make_policy, make_runner, started_judge, token_conversations
from common.asking import AskedQuestion, AskJob
from common.config import Config
from common.episode_record import EvaluationRecord, evaluation_record, record_line
from common.errors import InputError, LZeroError, PolicyServerError
from common.places import EVALUATION, RunPlan
from common.plan_file import own_keys
from common.wire.records import Outcome, Purpose, TaskLease, Trajectory
from common.wire.sockets import Wire

LONGEST_ROW = 16
"""Episodes in a row that failed through the machinery, beside those in flight, before it ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """Whom to ask, and how: an episode runner, and what it is told."""

    runner: EpisodeRunner
    temperature: float
    parallel: int


async def ask_all(questions: Sequence[AskedQuestion], asker: Asker, sink: TextIO) -> int:
    """Ask every question and write its episode to ``sink``; how many failed through us.

    Raises:
        PolicyServerError: nothing but failures came in for a while.
        InputError: ``sink`` cannot be written to.
    """
    waiting, failed, in_a_row = list(reversed(questions)), 0, 0

    async def work() -> None:
        nonlocal failed, in_a_row
        while waiting:
            trajectory = await _ask(waiting.pop(), asker, sink)
            is_lost = trajectory.outcome is Outcome.INFRASTRUCTURE
            failed, in_a_row = failed + is_lost, (in_a_row + 1) * is_lost
            if in_a_row >= LONGEST_ROW + asker.parallel:
                raise PolicyServerError(
                    f"{in_a_row} episodes in a row failed, the last one with "
                    f"{trajectory.failure}; the same command goes on when that is repaired"
                )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(asker.parallel, len(questions))):
                group.create_task(work())
    except* LZeroError as errors:
        raise errors.exceptions[0] from None
    return failed


async def _ask(question: AskedQuestion, asker: Asker, sink: TextIO) -> Trajectory:
    conversation = asker.runner.converse(asker.temperature)
    trajectory = await asker.runner.run(_lease(question, asker.temperature), conversation)
    record = dataclasses.replace(
        evaluation_record(question.task, trajectory, trajectory.oldest_version or 0),
        question_set=question.question_set,
        sample=question.sample,
        seconds=round(trajectory.finished_at - trajectory.started_at, 3),
        prompt_tokens=conversation.prompt_tokens,
    )
    try:
        sink.write(record_line(record))
        sink.flush()
    except OSError as error:
        raise InputError(f"the episodes cannot be written: {error}") from error
    return trajectory


def _lease(question: AskedQuestion, temperature: float) -> TaskLease:
    return TaskLease(
        lease_id="/".join(map(str, question.key)),
        group_id=question.task.task_id,
        sample_index=question.sample,
        purpose=Purpose.EVALUATE,
        temperature=temperature,
        task=question.task,
    )


@contextmanager
def episode_file(path: Path) -> Iterator[TextIO]:
    """The file to append to, without what a killed process had begun to write.

    Raises:
        InputError: it cannot be written.
    """
    try:
        if path.is_file():
            with path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        sink = path.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    with sink:
        yield sink


def pending(
    questions: Sequence[AskedQuestion], records: Iterable[EvaluationRecord]
) -> list[AskedQuestion]:
    """The questions without an episode among ``records``, or only with failures of ours."""
    done = {record.key for record in records if record.outcome != Outcome.INFRASTRUCTURE}
    return [question for question in questions if question.key not in done]


async def ask_pending(
    config: Config,
    job: AskJob,
    questions: Sequence[AskedQuestion],
    sink: TextIO,
    plan: RunPlan | None = None,
) -> int:
    """Ask ``questions``, of the job, and append to ``sink``; how many failed through us.

    Args:
        config: of the agent, its tools and its kernels.
        job: whom to ask, and how.
        questions: those that are left.
        sink: takes a line per episode as soon as it is over.
        plan: of the run whose policy server is asked; None where the job names another server.

    Raises:
        LZeroError: something cannot be started, or the policy is gone.
    """
    async with AsyncExitStack() as stack:
        config, conversations = await _policy(config, job, plan, stack)
        tools, wording = await _tools(config, job, questions, stack)
        kernels = await _kernels(config, questions, stack)
        runner = make_runner(
            config,
            actor_id="ask",
            conversations=conversations,
            kernels=None if config.agent.mode == "direct" else kernels,
            tools=tools,
            judge=await stack.enter_async_context(started_judge(config, kernels)),
            folders=[Path(one.tasks).parent for one in job.sets],
            wording=wording,
        )
        asker = Asker(runner=runner, temperature=job.temperature, parallel=job.parallel)
        return await ask_all(questions, asker, sink)


async def _policy(
    config: Config, job: AskJob, plan: RunPlan | None, stack: AsyncExitStack
) -> tuple[Config, Conversations]:
    """Conversations with the run's policy server, or with any other; its limits are kept."""
    if plan is not None:
        wire = stack.enter_context(Wire(own_keys(plan, EVALUATION)))
        policy = make_policy(config, plan.servers, wire, who=EVALUATION)
        stack.push_async_callback(policy.close)
        return config, token_conversations(config, policy)
    client = ChatClient(
        job.url,
        model=job.model,
        api_key=os.environ.get(job.key_variable, ""),
        timeout_s=config.agent.episode_timeout_s,
    )
    stack.push_async_callback(client.close)
    limited = with_limits_of(config, await client.describe())
    direct = limited.agent.mode == "direct"
    limit = limited.model.max_context
    return limited, lambda temperature: ChatConversation(
        client, limit=limit, temperature=temperature, direct=direct
    )


async def _tools(
    config: Config, job: AskJob, questions: Sequence[AskedQuestion], stack: AsyncExitStack
) -> tuple[dict[str, Tool], Wording | None]:
    """The tools of the notebook, or what words the questions where there is none."""
    if job.mode == "direct":
        return {}, ask_directly
    if job.mode == "rag":
        config = with_options(config, tools=("search", "submit_final_answer"))
    corpora = dict.fromkeys({question.task.corpus for question in questions}, job.corpus)
    tools = await stack.enter_async_context(started_tools(config, corpora))
    return ({}, AskWithPages(tools["search"])) if job.mode == "rag" else (tools, None)


async def _kernels(
    config: Config, questions: Sequence[AskedQuestion], stack: AsyncExitStack
) -> KernelPool | None:
    """For the notebooks, and for answers that are programs; None where there is neither."""
    programs = any(question.task.kind == "code" for question in questions)
    if config.agent.mode == "direct" and not programs:
        return None
    kernels = KernelPool(make_launcher(config.kernel), idle=config.kernel.idle)
    stack.push_async_callback(kernels.close)
    await kernels.start()
    return kernels
