"""The loop of one episode: think, write a cell, observe its output, until an answer.

consumes   a task and a conversation with the policy
produces   an ``Episode``, whatever happens: failures of ours are marked, failures of the policy
           (time-outs, dead kernels, actions that do not parse) are kept
waits for  the policy, the kernel pool, a running cell; each with its own deadline
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from actors.agent.conversation import ContextTooLongError, Conversation, Sample
from actors.agent.direct.reading import direct_answer
from actors.agent.events import Episode, EpisodeListener
from actors.agent.foreign_action import rewrite
from actors.agent.prompt import PromptTemplate
from actors.agent.reminders import format_reminder
from actors.agent.state import (
    EpisodeState,
    Wait,
    begin_episode,
    finish_episode,
    judge_failure,
)
from actors.agent.toolbox import ToolSet, cut_answer
from actors.kernels.interface import CellResult, CellStatus, DeathCause, KernelDiedError, LiveKernel
from actors.kernels.pool import KernelPool
from actors.tools.tool import Tool
from common.chat import ParsedAction, parse_action, without_turn_end
from common.config import Agent
from common.errors import InputError, LZeroError
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.records import Outcome, Step, Task

log = logging.getLogger(__name__)


class AgentLoop:
    """Runs episodes with one configuration; safe to run many at once."""

    def __init__(
        self,
        *,
        agent: Agent,
        kernels: KernelPool | None,
        tools: Mapping[str, Tool],
        prompt: PromptTemplate,
        cell_timeout_s: float,
        output_bytes: int = 65536,
    ) -> None:
        """Run cells in ``kernels`` (None is enough for direct mode) with these shared ``tools``.

        Args:
            agent: mode, budgets and tools of an episode.
            kernels: a fresh one is taken for each episode.
            tools: shared tools by configured name, started.
            prompt: template of the system prompt.
            cell_timeout_s: wall time of a cell.
            output_bytes: output kept of a cell, before the budget of the episode.
        """
        self._agent, self._kernels, self._prompt = agent, kernels, prompt
        self._cell_timeout_s, self._output_bytes = cell_timeout_s, output_bytes
        self._tools = ToolSet(agent, tools)
        self._told_too_long = False

    async def run(
        self, task: Task, conversation: Conversation, listener: EpisodeListener | None = None
    ) -> Episode:
        """Run one episode; never raises but for cancellation."""
        state: EpisodeState | None = None
        failure = ""
        try:
            state = begin_episode(
                task,
                conversation,
                listener,
                agent=self._agent,
                tools=self._tools,
                system=self._system_prompt(task, conversation),
            )
            async with asyncio.timeout(self._agent.episode_timeout_s):
                outcome = await self._episode(state)
        except Exception as error:  # one episode must never end the run
            outcome, failure = judge_failure(state, error, self._agent.episode_timeout_s)
            self._log(task, error, outcome)
        return finish_episode(state, outcome, failure)

    def _system_prompt(self, task: Task, conversation: Conversation) -> str:
        specs = self._tools.specs if self._agent.mode == "agent" else ()
        files = [Path(file).name for file in task.files]
        return self._prompt.render(self._agent, specs, files, escape=conversation.escape)

    def _log(self, task: Task, error: Exception, outcome: Outcome) -> None:
        """Say what ended an episode, where that is not the policy's everyday business."""
        if isinstance(error, ContextTooLongError):
            level = logging.DEBUG if self._told_too_long else logging.WARNING
            self._told_too_long = True
            log.log(level, "context too long task=%s reason=%s", task.task_id, error)
        elif isinstance(error, KernelDiedError):
            log.info("kernel died task=%s reason=%s", task.task_id, error)
        elif isinstance(error, LZeroError):
            log.warning("episode failed task=%s reason=%s", task.task_id, error)
        elif not isinstance(error, TimeoutError):
            log.error(
                "episode failed task=%s outcome=%s", task.task_id, outcome.value, exc_info=error
            )

    async def _episode(self, state: EpisodeState) -> Outcome:
        self._check_prompt(state.conversation)
        if self._agent.mode == "direct":
            return await self._answer_directly(state)
        if self._kernels is None:
            raise InputError("agent mode needs kernels; use agent.mode = 'direct' without them")
        state.waiting_for = Wait.KERNEL
        async with self._kernels.slot() as kernel:
            state.kernel_level = kernel.level
            for file in state.task.files:
                await _attach(kernel, Path(file))
            kernel.bind_tools(self._tools.specs, state.toolbox.handle)
            try:
                state.ended = await self._steps(state, kernel)
                return state.ended
            finally:
                state.toolbox.close()

    def _check_prompt(self, conversation: Conversation) -> None:
        """Refuse a prompt that leaves no room for the first action: nothing could be done."""
        needed = conversation.tokens + self._agent.max_action_tokens
        if needed > conversation.limit:
            raise ContextTooLongError(
                f"the prompt alone has {conversation.tokens} tokens; with an action of "
                f"{self._agent.max_action_tokens} (agent.max_action_tokens) that is more than the "
                f"{conversation.limit} of the context (model.max_context): fewer tools, a shorter "
                "system prompt or question, or a longer context would help"
            )

    async def _answer_directly(self, state: EpisodeState) -> Outcome:
        """One message, out of which the answer is read."""
        step = await self._sample(state)
        state.toolbox.answer = cut_answer(direct_answer(step.action, state.task.kind)) or None
        state.tell_step()
        return Outcome.SUBMITTED if state.toolbox.answer else Outcome.UNPARSABLE

    async def _steps(self, state: EpisodeState, kernel: LiveKernel) -> Outcome:
        while len(state.steps) < self._agent.max_steps:
            if self._tokens_left(state) == 0:
                return Outcome.OUT_OF_TOKENS
            step = await self._sample(state)
            if step.code is not None:
                output = await self._run_cell(state, kernel, step.code)
                fits = self._observe(state, output)
            elif ending := self._unparsable(state):
                return ending
            else:
                fits = self._remind(state, step)
            state.tell_step()
            if state.toolbox.answer is not None:
                return Outcome.SUBMITTED
            if not fits:
                return Outcome.OUT_OF_CONTEXT
        return Outcome.OUT_OF_STEPS

    async def _sample(self, state: EpisodeState) -> Step:
        """Sample the next action; the step is on record before anything can go wrong with it."""
        number, listener = len(state.steps), state.listener
        room = min(self._agent.max_action_tokens, self._tokens_left(state))
        state.waiting_for = Wait.POLICY
        on_delta = None if listener is None else lambda text: listener.on_delta(number, text)
        sample = await state.conversation.sample(number, max_tokens=room, on_delta=on_delta)
        state.observer.add(number)
        state.tokens += sample.tokens
        action = self._read(sample) if self._agent.mode == "agent" else None
        step = Step(
            action=sample.text,
            code=action.code if action is not None else None,
            observation="",
            finish_reason=sample.finish_reason,
            tokens=sample.tokens,
        )
        state.steps.append(step)
        state.outputs.append("")
        if listener is not None:
            listener.on_action(number, step.action, step.code)
        return step

    def _read(self, sample: Sample) -> ParsedAction | None:
        """The action that a sampled text is; what was sampled stays as it is."""
        if self._agent.accepted_actions == "strict":
            return parse_action(sample.text)
        text = without_turn_end(sample.text)
        return parse_action(rewrite(text, stopped=sample.finish_reason == "stop"))

    def _unparsable(self, state: EpisodeState) -> Outcome | None:
        """How an action that does not parse ends the episode, or None if it is forgiven."""
        if self._tokens_left(state) == 0:
            return Outcome.OUT_OF_TOKENS
        state.reminders += 1
        return Outcome.UNPARSABLE if state.reminders > self._agent.format_reminders else None

    async def _run_cell(self, state: EpisodeState, kernel: LiveKernel, code: str) -> str:
        """Run the cell and put on record what came of it; its output."""
        state.book_calls()
        state.cells, state.last_cell = state.cells + 1, len(state.steps) - 1
        state.waiting_for = Wait.CELL
        state.steps[-1] = replace(state.steps[-1], status="died")
        room = max(0, self._agent.max_output_bytes - state.output_bytes)
        result = await self._execute(state, kernel, code, min(room, self._output_bytes))
        state.output_bytes += len(result.output.encode("utf-8", "replace"))
        state.outputs[-1] = result.output
        state.steps[-1] = replace(
            state.steps[-1],
            status=result.status.value,
            outputs=result.outputs,
            seconds=result.seconds,
        )
        state.book_calls()
        return result.output

    async def _execute(
        self, state: EpisodeState, kernel: LiveKernel, code: str, output_bytes: int
    ) -> CellResult:
        """Run a cell against the clock; a reply that the host fails to read is the cell's doing."""
        clock, by_itself = state.toolbox.clock, False
        clock.begin_cell(time.monotonic())
        try:
            with waiting(WaitKind.CELL, kernel.kernel_id):
                result = await kernel.execute(
                    code, timeout_s=self._cell_timeout_s, output_bytes=output_bytes
                )
            by_itself = result.status is not CellStatus.TIMED_OUT
        except (LZeroError, TimeoutError):
            raise
        except Exception as error:
            log.exception("the reply of a kernel could not be read kernel=%s", kernel.kernel_id)
            reason = f"its reply could not be read: {type(error).__name__}: {error}"
            raise KernelDiedError(reason, DeathCause.PROTOCOL) from error
        finally:
            clock.end_cell(time.monotonic(), by_itself=by_itself)
        return result

    def _remind(self, state: EpisodeState, step: Step) -> bool:
        """Show the form of an action, with what the step held of one."""
        number, escape = len(state.steps) - 1, state.conversation.escape
        text = format_reminder(step.action, cut_off=step.finish_reason == "length", escape=escape)
        fitted: str | None = text
        if number + 1 < self._agent.max_steps and self._tokens_left(state) > 0:
            fitted = state.observer.remind(number, text)
        state.steps[-1] = replace(state.steps[-1], observation=fitted or "")
        return fitted is not None

    def _observe(self, state: EpisodeState, output: str) -> bool:
        """Put an output on record and, if there is a next step, into the context."""
        number = len(state.steps) - 1
        text = state.observer.shown(output, number)
        fitted: str | None = text
        goes_on = state.toolbox.answer is None and number + 1 < self._agent.max_steps
        if goes_on and self._tokens_left(state) > 0:
            fitted = state.observer.observe(number, text)
        state.steps[-1] = replace(state.steps[-1], observation=fitted or "")
        return fitted is not None

    def _tokens_left(self, state: EpisodeState) -> int:
        limit = self._agent.max_tokens
        return max(0, limit - state.tokens) if limit else self._agent.max_action_tokens


async def _attach(kernel: LiveKernel, file: Path) -> None:
    """Copy a file of the task into the notebook's working folder."""
    try:
        with waiting(WaitKind.FILES):
            data = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise InputError(f"attached file {file} cannot be read: {error}") from error
    await kernel.put_file(file.name, data)
