"""One episode of the notebook agent: think, write a cell, observe its output, until an answer.

consumes   a task lease
produces   a trajectory, whatever happens: failures of ours are marked, failures of the policy
           (time-outs, dead kernels, actions that do not parse) are kept and score nothing
waits for  the policy server, the kernel pool, a running cell; each with its own deadline
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from actors.context import SegmentBuilder
from actors.kernels.interface import Kernel
from actors.kernels.pool import KernelPool
from actors.policy import PolicyClient
from actors.rewards.terms import score
from actors.tools.toolbox import NoSearch, Searcher, Toolbox
from common.chat import ChatRenderer, ParsedAction, Tokenizer, parse_action
from common.config import Agent, Rewards
from common.errors import KernelError, LZeroError
from common.messages import Outcome, Step, TaskLease, Trajectory

log = logging.getLogger(__name__)

_CELL = "a running cell"


@dataclass(slots=True)
class _Record:
    """What an episode has done so far."""

    context: SegmentBuilder
    toolbox: Toolbox
    steps: list[Step]
    kernel_level: str = ""
    cells: int = 0
    cell_s: float = 0.0
    tokens: int = 0
    waiting_for: str = ""


class EpisodeRunner:
    """Runs episodes against one policy and one kernel pool; safe to run many at once."""

    def __init__(
        self,
        *,
        actor_id: str,
        policy: PolicyClient,
        kernels: KernelPool,
        tokenizer: Tokenizer,
        renderer: ChatRenderer,
        searchers: Mapping[str, Searcher],
        agent: Agent,
        rewards: Rewards,
        max_context: int,
        cell_timeout_s: float,
    ) -> None:
        """``searchers`` maps the corpus name of a task to its search tool."""
        self._actor_id = actor_id
        self._policy = policy
        self._kernels = kernels
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._searchers = searchers
        self._agent = agent
        self._rewards = rewards
        self._max_context = max_context
        self._cell_timeout_s = cell_timeout_s

    async def run(self, lease: TaskLease) -> Trajectory:
        """Run one episode; never raises but for cancellation."""
        started_at = time.time()
        record = _Record(SegmentBuilder(()), Toolbox(NoSearch()), [])
        failure = ""
        try:
            record.context.give(self._renderer.prompt(lease.task.question))
            record.toolbox = Toolbox(self._searchers[lease.task.corpus])
            async with asyncio.timeout(self._agent.episode_timeout_s):
                outcome = await self._episode(lease, record)
        except TimeoutError:
            outcome, failure = self._time_out(record)
        except KernelError as error:
            outcome = Outcome.KERNEL_DIED
            log.info("kernel died task=%s reason=%s", lease.task.task_id, error)
        except LZeroError as error:
            outcome, failure = Outcome.INFRASTRUCTURE, f"{type(error).__name__}: {error}"
            log.warning("episode failed task=%s reason=%s", lease.task.task_id, error)
        except Exception as error:  # one episode must never end the run
            outcome, failure = Outcome.INFRASTRUCTURE, f"{type(error).__name__}: {error}"
            log.exception("episode failed task=%s", lease.task.task_id)
        return self._trajectory(lease, record, outcome, failure, started_at)

    def _time_out(self, record: _Record) -> tuple[Outcome, str]:
        """The policy's own time-out scores nothing and stays; one that we caused is dropped."""
        limit_s = self._agent.episode_timeout_s
        if record.waiting_for == _CELL or record.cell_s > limit_s / 2:
            return Outcome.TIMED_OUT, ""
        return Outcome.INFRASTRUCTURE, (
            f"EpisodeTimeout: {limit_s:.0f} s (agent.episode_timeout_s) passed waiting for "
            f"{record.waiting_for or 'nothing in particular'}"
        )

    async def _episode(self, lease: TaskLease, record: _Record) -> Outcome:
        if len(record.context) + self._agent.max_action_tokens > self._max_context:
            return Outcome.OUT_OF_CONTEXT
        record.waiting_for = "a kernel"
        async with self._kernels.slot() as kernel:
            record.kernel_level = kernel.level
            kernel.bind_tools(Toolbox.names, record.toolbox.handle)
            return await self._steps(lease, record, kernel)

    async def _steps(self, lease: TaskLease, record: _Record, kernel: Kernel) -> Outcome:
        while len(record.steps) < self._agent.max_steps:
            action = await self._act(lease, record)
            if action is None:
                return Outcome.UNPARSABLE
            record.cells += 1
            record.waiting_for = _CELL
            result = await kernel.execute(action.code, timeout_s=self._cell_timeout_s)
            record.cell_s += result.seconds
            fits = self._observe(record, result.output)
            if record.toolbox.answer is not None:
                return Outcome.SUBMITTED
            if not fits:
                return Outcome.OUT_OF_CONTEXT
        return Outcome.OUT_OF_STEPS

    async def _act(self, lease: TaskLease, record: _Record) -> ParsedAction | None:
        """Sample the next action; the step is on record before anything can go wrong with it."""
        record.waiting_for = "the policy server"
        generation = await self._policy.generate(
            record.context.token_ids,
            max_tokens=self._agent.max_action_tokens,
            temperature=lease.temperature,
            stop_token_ids=self._renderer.stop_token_ids,
            stop_strings=self._renderer.stop_strings,
        )
        record.context.sample(
            len(record.steps), generation.token_ids, generation.logprobs, generation.versions
        )
        record.tokens += len(generation.token_ids)
        text = self._tokenizer.decode(generation.token_ids.tolist())
        action = parse_action(text)
        record.steps.append(
            Step(
                action=text,
                code=action.code if action is not None else None,
                observation="",
                finish_reason=generation.finish_reason,
            )
        )
        return action

    def _observe(self, record: _Record, output: str) -> bool:
        """Put a cell's output into the context; False when no further action would fit."""
        text = cut(output, self._agent.max_observation_characters)
        record.steps[-1] = dataclasses.replace(
            record.steps[-1], observation=text, tool_calls=record.toolbox.take_calls()
        )
        if record.toolbox.answer is not None or len(record.steps) == self._agent.max_steps:
            return True
        room = self._max_context - self._agent.max_action_tokens - len(record.context)
        token_ids = self._renderer.observation(text)
        while len(token_ids) > room and text:
            text = cut(text, len(text) * max(room, 0) // (len(token_ids) + 8))
            token_ids = self._renderer.observation(text)
        if len(token_ids) > room or (not text and output.strip()):
            return False
        record.context.give(token_ids)
        return True

    def _trajectory(
        self,
        lease: TaskLease,
        record: _Record,
        outcome: Outcome,
        failure: str,
        started_at: float,
    ) -> Trajectory:
        scored = score(
            lease.task,
            record.toolbox.answer,
            steps=len(record.steps),
            unparsable=outcome is Outcome.UNPARSABLE,
            weights=self._rewards,
        )
        return Trajectory(
            trajectory_id=lease.lease_id,
            task_id=lease.task.task_id,
            group_id=lease.group_id,
            sample_index=lease.sample_index,
            purpose=lease.purpose,
            actor_id=self._actor_id,
            outcome=outcome,
            segments=(record.context.build(),),
            step_rewards=scored.step_rewards,
            steps=tuple(record.steps),
            answer=record.toolbox.answer,
            scores=scored.scores,
            failure=failure,
            kernel_level=record.kernel_level,
            cells_executed=record.cells,
            tokens_generated=record.tokens,
            started_at=started_at,
            finished_at=time.time(),
        )


def cut(text: str, characters: int) -> str:
    """``text``, shortened to at most ``characters`` with a mark where it was cut."""
    text = text.rstrip()
    if len(text) <= characters:
        return text
    return text[: characters - 1] + "…" if characters > 1 else ""
