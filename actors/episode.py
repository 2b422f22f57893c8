"""An episode for training or evaluation: a task lease in, a trajectory out."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from actors.agent.conversation import Conversation
from actors.agent.direct.wording import Wording
from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.rewards.judge.pool import Judge
from actors.rewards.scorer import Scored
from common.errors import LZeroError
from common.task_rules import NO_EXTRAS, TaskRules, check_given_task
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.records import Outcome, Task, TaskLease, Trajectory

Conversations = Callable[[float], Conversation]
"""Makes the conversation of one episode with the policy; takes the temperature of its sampling."""


class EpisodeRunner:
    """Runs leases against one policy with one agent; safe to run many at once."""

    def __init__(
        self,
        *,
        actor_id: str,
        conversations: Conversations,
        loop: AgentLoop,
        judge: Judge,
        rules: TaskRules = NO_EXTRAS,
        folders: Sequence[Path] = (),
        wording: Wording | None = None,
    ) -> None:
        """Run episodes of ``loop``.

        Args:
            actor_id: of this actor.
            conversations: with the policy.
            loop: runs the steps.
            judge: asks and scores; started.
            rules: what a task may bring along, whoever leases it.
            folders: of the task files that this actor knows of.
            wording: words the questions for the policy; None leaves them as they are.
        """
        self._actor_id = actor_id
        self._conversations, self._loop = conversations, loop
        self._judge, self._wording = judge, wording
        self._rules, self._folders = rules, tuple(folders)

    def converse(self, temperature: float) -> Conversation:
        """A conversation for ``run``, for who wants to look at it afterwards."""
        return self._conversations(temperature)

    async def run(self, lease: TaskLease, conversation: Conversation | None = None) -> Trajectory:
        """Run one episode; never raises but for cancellation."""
        started_at = time.time()
        conversation = conversation or self.converse(lease.temperature)
        task, episode = lease.task, _NOT_BEGUN
        try:
            check = partial(check_given_task, task, self._folders, self._rules)
            with waiting(WaitKind.FILES):
                await asyncio.to_thread(check) if task.files else check()
            task = dataclasses.replace(task, question=await self._asked(task))
            episode = await self._loop.run(task, conversation)
            scored = await self._score(lease.task, episode)
        except LZeroError as error:  # a task type or a reward term of the user's failed
            episode = _failed(episode, error)
            scored = await self._score(lease.task, episode)
        return self._trajectory(lease, task.question, episode, scored, conversation, started_at)

    async def _asked(self, task: Task) -> str:
        """The question as the policy is asked it."""
        question = await self._judge.ask(task)
        return question if self._wording is None else await self._wording(task, question)

    async def _score(self, task: Task, episode: Episode) -> Scored:
        return await self._judge.score(task, episode.answer, episode.steps, episode.outcome)

    def _trajectory(
        self,
        lease: TaskLease,
        question: str,
        episode: Episode,
        scored: Scored,
        conversation: Conversation,
        started_at: float,
    ) -> Trajectory:
        return Trajectory(
            trajectory_id=lease.lease_id,
            task_id=lease.task.task_id,
            group_id=lease.group_id,
            sample_index=lease.sample_index,
            purpose=lease.purpose,
            actor_id=self._actor_id,
            outcome=episode.outcome,
            segments=conversation.segments(),
            step_rewards=scored.step_rewards,
            steps=episode.steps,
            answer=episode.answer,
            scores=scored.scores,
            failure=episode.failure,
            kernel_level=episode.kernel_level,
            cells_executed=episode.cells_executed,
            tokens_generated=episode.tokens_generated,
            question=question,
            started_at=started_at,
            finished_at=time.time(),
        )


_NOT_BEGUN = Episode(outcome=Outcome.INFRASTRUCTURE, answer=None, steps=())


def _failed(episode: Episode, error: LZeroError) -> Episode:
    """The episode as one that failed through us, with its steps for whoever looks for the fault."""
    failure = f"{type(error).__name__}: {error}"
    return dataclasses.replace(episode, outcome=Outcome.INFRASTRUCTURE, failure=failure)
