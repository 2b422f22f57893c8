"""Has episodes scored in processes of their own, so that no reward can hold up an actor.

consumes   tasks, answers and steps of the episodes of an actor
produces   questions, step rewards and scores; a ``PluginError`` that names the cause where a term
           or a task type hangs, crashes, raises or returns nonsense
waits for  a free judge process, then its answer, the latter for at most ``rewards.timeout_s``
unblocked by  the process, or its death; one that hung or died is replaced
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from actors.rewards.answers import MAX_CHARACTERS
from actors.rewards.judge_process import JudgeProcess, search_path
from actors.rewards.judge_wire import (
    Answer,
    Failure,
    Finished,
    Question,
    Setup,
    pack_request,
    pack_setup,
    unpack_answer,
)
from actors.rewards.scorer import (
    Scored,
    counted_answer,
    no_scores,
    term_name,
    weights,
)
from actors.rewards.task_types import asked_question, kind_name
from common.config import Config
from common.errors import ConfigError, EnvironmentFault, PluginError, ProtocolError
from common.messages import Outcome, Step, Task
from common.plugins import is_plugin

log = logging.getLogger(__name__)

ALERT_AFTER = 3
"""Failures in a row of one term or task type after which it is broken rather than unlucky."""

_START_S = 60.0
"""How long a judge may take to import the user's packages."""


class Judge:
    """A small pool of judge processes; safe to ask many at once."""

    def __init__(self, config: Config) -> None:
        """Nothing is started before ``start``."""
        self._rewards = config.rewards
        setup = Setup(path=search_path(), kinds=config.tasks.kinds, rewards=config.rewards)
        self._setup = pack_setup(setup)
        self._plugins = tuple(term_name(name) for name in weights(self._rewards) if is_plugin(name))
        self._free = asyncio.Semaphore(self._rewards.workers)
        self._idle: list[JudgeProcess] = []
        self._gone: list[JudgeProcess] = []
        self._in_a_row: Counter[str] = Counter()

    async def start(self) -> None:
        """Start the first process and keep it ready.

        Raises:
            ConfigError: a term or a task type cannot be imported, or does not exist.
        """
        try:
            self._idle.append(await self._begin())
        except PluginError as error:
            raise ConfigError(str(error)) from error

    async def close(self) -> None:
        """End all processes."""
        processes = [*self._idle, *self._gone]
        self._idle.clear()
        self._gone.clear()
        for process in processes:
            await process.close()

    async def ask(self, task: Task) -> str:
        """What the policy is asked for ``task``.

        Raises:
            PluginError: its type failed, hung or crashed.
            ConfigError: there is no such type.
        """
        if not is_plugin(task.kind):
            return asked_question(task)
        answer = await self._answer(Question(task=task), steps=0)
        if not isinstance(answer, str):
            raise PluginError(f"{kind_name(task.kind)}: a judge process gave no question")
        return answer

    async def score(
        self, task: Task, answer: str | None, steps: Sequence[Step], outcome: Outcome
    ) -> Scored:
        """Score one episode, as ``Scorer.score`` does.

        Raises:
            PluginError: a term or the task's type failed, hung or crashed.
        """
        if outcome is Outcome.INFRASTRUCTURE:
            return no_scores(self._rewards, len(steps))
        cut = None if answer is None else answer[:MAX_CHARACTERS]
        finished = Finished(task=task, answer=cut, steps=tuple(steps), outcome=outcome)
        scored = await self._answer(finished, steps=len(steps))
        if not isinstance(scored, Scored):
            raise PluginError("rewards: a judge process gave no scores")
        self._went_well(finished)
        return scored

    async def _answer(self, request: Question | Finished, *, steps: int) -> str | Scored:
        async with self._free:
            process = self._take() or await self._begin()
            answer = await self._put(
                process,
                pack_request(request),
                timeout_s=self._rewards.timeout_s,
                steps=steps,
                about=f" of task {request.task.task_id!r}",
            )
            if process.alive:
                self._idle.append(process)
        if isinstance(answer, Failure):
            raise self._fault(answer)
        return answer

    def _take(self) -> JudgeProcess | None:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            self._give_up(process)
        return None

    async def _begin(self) -> JudgeProcess:
        self._gone = [process for process in self._gone if not process.over]
        try:
            process = JudgeProcess()
        except OSError as error:
            raise EnvironmentFault(f"a judge process cannot start: {error}") from error
        answer = await self._put(process, self._setup, timeout_s=_START_S)
        if isinstance(answer, Failure):
            self._give_up(process)
            raise self._fault(answer)
        return process

    async def _put(
        self,
        process: JudgeProcess,
        frame: bytes,
        *,
        timeout_s: float,
        steps: int = 0,
        about: str = "",
    ) -> Answer:
        """Put a request to a process, which is given up where it does not answer as it should."""
        is_well = False
        try:
            async with asyncio.timeout(timeout_s):
                answer = unpack_answer(await process.exchange(frame), steps=steps)
            is_well = True
        except TimeoutError:
            return await process.describe_hang(timeout_s, about)
        except EOFError:
            return await process.describe_end(about)
        except ProtocolError as error:
            return Failure(plugin=process.called, text=f"{process.called}{about}: {error}")
        finally:
            if not is_well:
                self._give_up(process)
        return answer

    def _give_up(self, process: JudgeProcess) -> None:
        process.kill()
        self._gone.append(process)

    def _fault(self, failure: Failure) -> PluginError:
        self._in_a_row[failure.plugin] += 1
        count = self._in_a_row[failure.plugin]
        text = failure.text
        if count < ALERT_AFTER:
            log.warning("scoring failed reason=%s", text)
            return PluginError(text)
        text += (
            f" [failure {count} in a row of {failure.plugin}: no episode that it scores is kept]"
        )
        if count == ALERT_AFTER or count % 100 == 0:
            log.error("ALERT scoring fails again and again reason=%s", text)
        return PluginError(text)

    def _went_well(self, finished: Finished) -> None:
        """Forget failures of what has just run to its end."""
        if finished.steps:
            for name in self._plugins:
                self._in_a_row.pop(name, None)
        if counted_answer(finished.answer, finished.outcome) is not None:
            self._in_a_row.pop(kind_name(finished.task.kind), None)
