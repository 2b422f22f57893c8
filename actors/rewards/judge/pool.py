"""Has episodes scored in processes of their own, so that no reward can hold up an actor.

consumes   tasks, answers and steps of the episodes of an actor
produces   questions, step rewards and scores; the measures of a type that needs sandboxes or a
           model come from ``elsewhere.py``; a ``PluginError`` that names the cause where a term
           or a task type hangs, crashes, raises or returns nonsense
waits for  a free judge process, for at most ``transport.lease_grace_s - rewards.timeout_s``, then
           its answer, for at most ``rewards.timeout_s``; both together fit the time of a lease
unblocked by  the process, or its death; one that hung or died is replaced, and where its successor
           does not start, later each time and so often an hour (``actors.mending``)
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from actors.mending import MendedPart, Mending
from actors.rewards.answers import MAX_CHARACTERS
from actors.rewards.judge.elsewhere import Elsewhere
from actors.rewards.judge.process import JudgeProcess, search_path
from actors.rewards.judge.wire import (
    Answer,
    Failure,
    QuestionRequest,
    ScoreRequest,
    Setup,
    pack_request,
    pack_setup,
    unpack_answer,
)
from actors.rewards.means import Means
from actors.rewards.scorer import (
    Scored,
    counted_answer,
    no_scores,
    term_name,
    weights,
)
from actors.rewards.task_types import asked_question, kind_name
from common.config import Config
from common.errors import ConfigError, LZeroError, MachineError, PluginError, ProtocolError
from common.plugins import is_plugin
from common.restarts import RestartBook
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.records import Outcome, Step, Task

log = logging.getLogger(__name__)

ALERT_AFTER = 3
"""Failures in a row of one term or task type after which it is broken rather than unlucky."""

_START_S = 60.0
"""How long a judge may take to import the user's packages."""
_PATIENCE_S = 1.0
"""How long to wait for a running process before another is started: rewards that take less share
one, also on a machine that is busy with other things, where each start would cost more."""


class Judge:
    """A small pool of judge processes; safe to ask many at once."""

    def __init__(
        self, config: Config, means: Means | None = None, mending: Mending | None = None
    ) -> None:
        """Nothing is started before ``start``.

        Args:
            config: names the terms and the types.
            means: for the types that need some.
            mending: hears of processes that ended or did not start.
        """
        self._mending = mending or Mending()
        self._starts = MendedPart("a judge process", self._mending)
        self._not_before = 0.0
        self._ends = RestartBook()
        self._elsewhere = Elsewhere(
            means or Means(), places=config.rewards.workers, wait_s=config.judge_wait_s
        )
        self._rewards = config.rewards
        setup = Setup(path=search_path(), kinds=config.tasks.kinds, rewards=config.rewards)
        self._setup = pack_setup(setup)
        self._plugins = tuple(term_name(name) for name in weights(self._rewards) if is_plugin(name))
        self._wait_s = config.judge_wait_s
        self._free = asyncio.Semaphore(self._rewards.workers)
        self._idle: asyncio.LifoQueue[JudgeProcess] = asyncio.LifoQueue()
        self._busy: dict[JudgeProcess, float] = {}
        self._is_starting = False
        self._gone: list[JudgeProcess] = []
        self._in_a_row: Counter[str] = Counter()

    async def start(self) -> None:
        """Start the first process and keep it ready.

        Raises:
            ConfigError: a term or a task type cannot be imported, or does not exist.
        """
        try:
            self._idle.put_nowait(await self._begin())
        except PluginError as error:
            raise ConfigError(str(error)) from error

    async def close(self) -> None:
        """End all processes."""
        while not self._idle.empty():
            self._gone.append(self._idle.get_nowait())
        for process in self._gone:
            await process.close()
        self._gone.clear()

    async def ask(self, task: Task) -> str:
        """What the policy is asked for ``task``.

        Raises:
            PluginError: its type failed, hung or crashed.
            ConfigError: there is no such type.
        """
        if not is_plugin(task.kind):
            return asked_question(task)
        answer = await self._answer(QuestionRequest(task=task), steps=0, wait_s=self._wait_s)
        if not isinstance(answer, str):
            raise PluginError(f"{kind_name(task.kind)}: a judge process gave no question")
        return answer

    async def score(
        self, task: Task, answer: str | None, steps: Sequence[Step], outcome: Outcome
    ) -> Scored:
        """Score one episode, as ``Scorer.score`` does.

        Raises:
            PluginError: a term or the task's type failed, hung or crashed.
            LZeroError: a sandbox, or the model that grades, could not be had.
        """
        if outcome is Outcome.INFRASTRUCTURE:
            return no_scores(self._rewards, len(steps))
        began = time.monotonic()
        measured = await self._elsewhere.measured(task, answer, outcome)
        left_s = max(self._wait_s - (time.monotonic() - began), 1.0)
        cut = None if answer is None else answer[:MAX_CHARACTERS]
        finished = ScoreRequest(
            task=task, answer=cut, steps=tuple(steps), outcome=outcome, measured=measured
        )
        scored = await self._answer(finished, steps=len(steps), wait_s=left_s)
        if not isinstance(scored, Scored):
            raise PluginError("rewards: a judge process gave no scores")
        self._went_well(finished)
        return scored

    async def _answer(
        self, request: QuestionRequest | ScoreRequest, *, steps: int, wait_s: float
    ) -> str | Scored:
        about = f" of task {request.task.task_id!r}"
        with waiting(WaitKind.JUDGE):
            async with self._process(about, wait_s) as process:
                answer = await self._put(
                    process,
                    pack_request(request),
                    timeout_s=self._rewards.timeout_s,
                    steps=steps,
                    about=about,
                )
        if isinstance(answer, Failure):
            raise self._fault(answer)
        return answer

    @asynccontextmanager
    async def _process(self, about: str, wait_s: float) -> AsyncIterator[JudgeProcess]:
        """A process for one request.

        There are never more than ``rewards.workers``: who starts one holds a place and found none
        idle, so that each of the others is in one of the other places.
        """
        try:
            async with asyncio.timeout(wait_s) as limit:
                await self._free.acquire()
                try:
                    process = await self._idle_or_new()
                except BaseException:
                    self._free.release()
                    raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._none_free(about, wait_s) from error
        self._busy[process] = time.monotonic()
        try:
            yield process
        finally:
            del self._busy[process]
            if process.alive:
                self._idle.put_nowait(process)
            elif process not in self._gone:
                self._give_up(process)
            self._free.release()

    async def _idle_or_new(self) -> JudgeProcess:
        """The idle process that was used last, else a new one; they are started one by one."""
        while True:
            comes_back = bool(self._busy) or self._is_starting or not self._idle.empty()
            try:
                wait_s = max(0.0, self._not_before - time.monotonic())
                async with asyncio.timeout(max(wait_s, _PATIENCE_S) if comes_back else wait_s):
                    process = await self._idle.get()
            except TimeoutError:
                if not self._is_starting and time.monotonic() >= self._not_before:
                    return await self._begin_again()
                continue
            if process.alive:
                return process
            self._give_up(process)

    def _none_free(self, about: str, wait_s: float) -> PluginError:
        now = time.monotonic()
        names = Counter(process.called for process in self._busy).most_common(3)
        busy = ", ".join(name for name, _ in names) or "nothing yet"
        longest = max((now - since for since in self._busy.values()), default=0.0)
        count, most = len(self._busy), self._rewards.workers
        how_many = f"all {most}" if count == most else f"{count} of {most}, all that had started,"
        text = (
            f"rewards{about}: no judge process was free for {wait_s:.3g} s; {how_many} are "
            f"busy with {busy} (longest: {longest:.1f} s); raise rewards.workers or make it faster"
        )
        log.warning("scoring failed reason=%s", text)
        return PluginError(text)

    async def _begin_again(self) -> JudgeProcess:
        """A new process; where it does not start, the next is tried later."""
        try:
            return await self._begin()
        except LZeroError as error:
            self._not_before = time.monotonic() + self._starts.ended(f"did not start: {error}")
            raise

    async def _begin(self) -> JudgeProcess:
        self._gone = [process for process in self._gone if not process.over]
        try:
            process = JudgeProcess()
        except OSError as error:
            raise MachineError(f"a judge process cannot start: {error}") from error
        self._is_starting = True
        try:
            answer = await self._put(process, self._setup, timeout_s=_START_S)
        finally:
            self._is_starting = False
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
            ended = await process.describe_end(about)
            if about:
                self._say_that_it_ended(ended)
            return ended
        except ProtocolError as error:
            return Failure(plugin=process.called, text=f"{process.called}{about}: {error}")
        finally:
            if not is_well:
                self._give_up(process)
        return answer

    def _say_that_it_ended(self, ended: Failure) -> None:
        """A process ended by itself, which is not the fault of who asks next: he gets another.

        In an hour no more is told than what may be started again.
        """
        if self._ends.ended(time.monotonic(), has_worked=True) is not None:
            self._mending.again(f"a judge process is replaced: {ended.text}")

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

    def _went_well(self, finished: ScoreRequest) -> None:
        """Forget failures of what has just run to its end."""
        if finished.steps:
            for name in self._plugins:
                self._in_a_row.pop(name, None)
        if counted_answer(finished.answer, finished.outcome) is not None:
            self._in_a_row.pop(kind_name(finished.task.kind), None)
