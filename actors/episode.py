"""An episode for training or evaluation: a task lease in, a trajectory out."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from actors.agent.events import Episode
from actors.agent.loop import AgentLoop
from actors.agent.token_conversation import TokenConversation
from actors.policy import PolicyClient
from actors.rewards.judge.pool import Judge
from actors.rewards.scorer import Scored
from common.chat import ChatRenderer, Tokenizer
from common.errors import LZeroError
from common.task_rules import NO_EXTRAS, TaskRules, check_given_task
from common.wire.records import Outcome, Task, TaskLease, Trajectory


class EpisodeRunner:
    """Runs leases against one policy with one agent; safe to run many at once."""

    def __init__(
        self,
        *,
        actor_id: str,
        policy: PolicyClient,
        loop: AgentLoop,
        tokenizer: Tokenizer,
        renderer: ChatRenderer,
        judge: Judge,
        max_context: int,
        direct: bool = False,
        rules: TaskRules = NO_EXTRAS,
        folders: Sequence[Path] = (),
    ) -> None:
        """Run episodes of ``loop`` in contexts of at most ``max_context`` tokens.

        Args:
            actor_id: of this actor.
            policy: samples.
            loop: runs the steps.
            tokenizer: of the policy.
            renderer: over that tokenizer.
            judge: asks and scores; started.
            max_context: tokens.
            direct: the policy answers in one message, without cells.
            rules: what a task may bring along, whoever leases it.
            folders: of the task files that this actor knows of.
        """
        self._actor_id = actor_id
        self._policy, self._loop = policy, loop
        self._tokenizer, self._renderer = tokenizer, renderer
        self._judge = judge
        self._rules, self._folders = rules, tuple(folders)
        self._max_context = max_context
        self._direct = direct

    async def run(self, lease: TaskLease) -> Trajectory:
        """Run one episode; never raises but for cancellation."""
        started_at = time.time()
        conversation = TokenConversation(
            policy=self._policy,
            renderer=self._renderer,
            tokenizer=self._tokenizer,
            limit=self._max_context,
            temperature=lease.temperature,
            whole_turns=self._direct,
        )
        task, episode = lease.task, _NOT_BEGUN
        try:
            check = partial(check_given_task, task, self._folders, self._rules)
            await asyncio.to_thread(check) if task.files else check()
            task = dataclasses.replace(task, question=await self._judge.ask(task))
            episode = await self._loop.run(task, conversation)
            scored = await self._score(lease.task, episode)
        except LZeroError as error:  # a task type or a reward term of the user's failed
            episode = _failed(episode, error)
            scored = await self._score(lease.task, episode)
        return self._trajectory(lease, task.question, episode, scored, conversation, started_at)

    async def _score(self, task: Task, episode: Episode) -> Scored:
        return await self._judge.score(task, episode.answer, episode.steps, episode.outcome)

    def _trajectory(
        self,
        lease: TaskLease,
        question: str,
        episode: Episode,
        scored: Scored,
        conversation: TokenConversation,
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
