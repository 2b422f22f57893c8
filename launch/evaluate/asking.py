"""Has questions asked while a person watches, with a policy server of ours where one is needed.

consumes   a job and the folder of a result
produces   lines in its file of episodes, as they end
waits for  the policy server to be ready, then the episodes, each with its own deadlines
unblocked by  the end of the server, and by Ctrl-C, which ends everything and loses no episode
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from actors.ask import ask_pending, episode_file, pending
from actors.rewards.task_types import check_task
from common.asking import AskedQuestion, AskJob, questions_of
from common.config import Config
from common.config_file import save_config
from common.places import RunPlan
from common.task_rules import task_rules
from launch.evaluate.folder import EvalFolder
from launch.evaluate.progress import AskedSoFar
from launch.plan.topology import RunFiles
from launch.report.progress import ProgressPanel
from launch.run.preflight import check_scoring
from launch.starters import specs
from launch.starters.local import POLL_S, Interrupted, Supervisor, interruptible
from launch.starters.private import make_plan, private_folder


def checked_questions(config: Config, job: AskJob) -> list[AskedQuestion]:
    """What a job asks, before anything is made or started.

    Raises:
        InputError: a task file cannot be read, or its type refuses a task.
        ConfigError: answers could not be scored, as without a model to judge them.
    """
    questions = questions_of(job, task_rules(config))
    tasks = [question.task for question in questions[: len(questions) // job.samples]]
    for task in tasks:
        check_task(task)
    check_scoring(config, tasks, trains=False)
    return questions


def ask_rest(
    config: Config,
    job: AskJob,
    questions: Sequence[AskedQuestion],
    folder: EvalFolder,
    progress: ProgressPanel,
) -> None:
    """Ask what the folder has no episode of yet.

    Args:
        config: the agent's, and the policy server's where there is one of ours.
        job: how to ask.
        questions: those of the job (``checked_questions``).
        folder: of the result.
        progress: where a person sees how far it is.

    Raises:
        LZeroError: something cannot be started or read, or the policy is gone.
        Interrupted: Ctrl-C or SIGTERM; what was asked until then is kept.
    """
    with episode_file(folder.episodes) as sink:
        left = pending(questions, folder.read_episodes())
        if len(left) < len(questions):
            done = len(questions) - len(left)
            progress.say(f"{done} of {len(questions)} questions have been asked already")
        if not left:
            return
        searches = "search" in config.agent.tools and config.tools.search.provider == "local"
        if searches and not job.corpus:
            progress.say("search will find nothing: there is no --corpus")
        save_config(config, folder.config)
        with _policy(config, job, folder, progress) as (plan, check):
            progress.watch_news(AskedSoFar(folder.episodes, len(questions)).line)
            episodes = f", {len(left)} episodes," if job.samples > 1 else ""
            progress.phase(f"asking {_number(left)} questions{episodes} in mode {job.mode}")
            asyncio.run(_watched(ask_pending(config, job, left, sink, plan), check))
        progress.end_news()


def _number(asked: Sequence[AskedQuestion]) -> int:
    """How many different ones: samples of a question are one."""
    return len({(one.question_set, one.task.task_id) for one in asked})


@contextmanager
def _policy(
    config: Config, job: AskJob, folder: EvalFolder, progress: ProgressPanel
) -> Iterator[tuple[RunPlan | None, Callable[[], None]]]:
    """The plan of our own policy server, started, if it is asked; and what to call meanwhile."""
    if job.url:
        yield None, progress.tick
        return
    with (
        private_folder(folder.path) as private,
        interruptible(),
        Supervisor(tick=progress.tick) as supervisor,
    ):
        progress.phase("starting the policy servers")
        plan = make_plan(config, RunFiles(config=folder.config, private=private))
        supervisor.start(*specs.policy_servers(plan, config, folder.logs))

        def check() -> None:
            supervisor.check()
            progress.tick()

        yield plan, check


async def _watched(asking: Coroutine[Any, Any, int], check: Callable[[], None]) -> int:
    """Wait for what asks, and call ``check`` several times a second.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was asked until then is kept.
        RunError: the policy server is gone, as ``check`` says.
    """
    loop, work = asyncio.get_running_loop(), asyncio.create_task(asking)
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        while not work.done():
            await asyncio.wait([work], timeout=POLL_S)
            check()
        return await work
    except asyncio.CancelledError:
        if interrupted.is_set():
            raise Interrupted("interrupted") from None
        raise
    finally:
        work.cancel()
        await asyncio.wait([work])
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
