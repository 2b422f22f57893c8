"""Whatever a reward term or a task type does, it is not done to the actor, and is named at once."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.mending import Mending
from actors.rewards.judge.pool import Judge
from actors.rewards.scorer import Scored, Scorer
from actors.wiring import started_judge
from common.config import Config, Rewards, Tasks, Transport
from common.errors import ConfigError, MachineError, PluginError
from common.wire.records import Outcome, Step, Task
from tests.process_tree import alive, descendants, wait_until_dead

MODULE = "judged_for_test"
SOURCE = """import ctypes
import os
import pathlib
import re
import subprocess
import sys
import time

from actors.rewards.task_types import TaskType


def act(how):
    if how == "sleep":
        time.sleep(30)
    if how == "spin":
        while True:
            pass
    if how == "regex":
        re.match(r"(a+)+$", "a" * 60 + "!")
    if how == "sleep with a child":
        subprocess.run(["sleep", "30"])
    if how == "exit":
        sys.exit(3)
    if how == "leave":
        os._exit(4)
    if how == "crash":
        ctypes.string_at(0)
    if how == "slow":
        time.sleep(0.1)
    if how.startswith("meet "):
        folder = pathlib.Path(how[5:])
        (folder / f"{os.getpid()}.met").touch()
        while len(list(folder.glob("*.met"))) < 3:
            time.sleep(0.01)
    if how == "flood":
        print("\\x1bx" * 500_000, flush=True)
    if how == "print":
        print("hello", flush=True)
        os.write(1, b"more")


def term(episode):
    act(episode.task.details["term"])
    return episode.on_last_step(float(os.getpid() != 0))


class Kind(TaskType):
    measures = ("exact_match",)

    def question(self, task):
        act(task.details["question"])
        return "asked: " + task.question

    def measure(self, task, answer):
        act(task.details["measure"])
        return {"exact_match": answer == "right"}
"""
STEP = Step(action="<think>a</think><code>b</code>", code="b", observation="\ud83d", status="ok")
HERE = f"{MODULE}.py"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / HERE).write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def config(**rewards: Any) -> Config:
    terms = {f"{MODULE}:term": 1.0}
    return Config(
        tasks=Tasks(kinds=(f"{MODULE}:Kind",)),
        rewards=Rewards(**{"preset": "none", "terms": terms, "timeout_s": 0.5, **rewards}),
    )


def task(**how: str) -> Task:
    details = {"term": "", "question": "", "measure": "", **how}
    return Task(task_id="t", question="q", kind=f"{MODULE}:Kind", details=details)


async def score(judge: Judge, answer: str | None = "right", **how: str) -> Scored:
    return await judge.score(task(**how), answer, (STEP, STEP), Outcome.SUBMITTED)


def test_a_judge_scores_as_the_scorer_does() -> None:
    async def main() -> tuple[str, Scored, Scored]:
        async with started_judge(config()) as judge:
            right = await score(judge)
            return await judge.ask(task()), right, await score(judge, "wrong", term="print")

    question, right, wrong = asyncio.run(main())

    there = Scorer(config().rewards).score(task(), "right", (STEP, STEP), Outcome.SUBMITTED)
    assert question == "asked: q"
    assert (right.step_rewards.tolist(), right.scores) == ([0.0, 1.0], there.scores)
    assert (wrong.scores["exact_match"], wrong.scores["submitted"]) == (0.0, 1.0)


def test_a_failure_of_ours_is_worth_nothing_and_asks_no_code_of_the_users() -> None:
    judge = Judge(config())
    steps = (STEP, STEP)

    scored = asyncio.run(judge.score(task(), "right", steps, Outcome.INFRASTRUCTURE))

    assert scored.step_rewards.tolist() == [0.0, 0.0]
    assert set(scored.scores.values()) == {0.0}
    assert judge._idle.empty()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("sleep", rf"was not done after 0.5 s \(rewards.timeout_s\) \(.*{HERE}, line 14, in act\)"),
        ("regex", rf"was not done after 0.5 s .*{HERE}, line 19, in act\)"),
        ("exit", rf"SystemExit: 3 \(.*{HERE}, line 23, in act\)"),
        ("leave", r"ended its process with exit code 4$"),
        ("crash", rf"died of SIGSEGV \(.*{HERE}, line 27, in act\)"),
    ],
)
def test_a_failure_is_named_and_the_next_episode_is_scored(how: str, message: str) -> None:
    async def main() -> None:
        async with started_judge(config()) as judge:
            kind, term = f"kind '{MODULE}:Kind'", f"rewards.terms: '{MODULE}:term'"
            with pytest.raises(PluginError, match=rf"^{kind} of task 't':? {message}"):
                await score(judge, measure=how)
            assert (await score(judge)).scores["exact_match"] == 1.0
            if how == "leave":
                with pytest.raises(PluginError, match=rf"^{term} of task 't':? {message}"):
                    await score(judge, term=how)
                with pytest.raises(PluginError, match=rf"^{kind} of task 't':? {message}"):
                    await judge.ask(task(question=how))

    asyncio.run(main())


async def longest_gap(work: Awaitable[object]) -> float:
    """Longest time, seconds, for which the event loop did nothing else while ``work`` went on."""
    gap = 0.0

    async def beat() -> None:
        nonlocal gap
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gap, before = max(gap, now - before), now

    beating = asyncio.create_task(beat())
    await work
    beating.cancel()
    return gap


def test_an_endless_measure_never_holds_up_the_event_loop() -> None:
    async def main() -> tuple[float, list[object]]:
        async with started_judge(config(timeout_s=0.6)) as judge:
            many = asyncio.gather(
                *(score(judge, measure=how) for how in ("regex", "", "spin", "", "")),
                return_exceptions=True,
            )
            return await longest_gap(many), await many

    gap, results = asyncio.run(main())

    assert gap < 1.5
    assert [isinstance(result, PluginError) for result in results] == [True, False, True, *2 * [0]]


def test_the_third_failure_in_a_row_is_an_alert_and_a_success_ends_the_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> list[str]:
        said = []
        async with started_judge(config()) as judge:
            for how in ("exit", "exit", "", "exit", "exit", "exit"):
                try:
                    await score(judge, measure=how)
                    # Not asked to measure, so this is no success of the type.
                    await judge.score(task(), None, (STEP,), Outcome.OUT_OF_STEPS)
                except PluginError as error:
                    said.append(str(error).partition(" [")[2])
        return said

    with caplog.at_level(logging.ERROR):
        said = asyncio.run(main())

    row = f"failure 3 in a row of kind '{MODULE}:Kind': no episode that it scores is kept]"
    assert said == ["", "", "", "", row]
    (alert,) = caplog.messages
    assert alert.startswith("ALERT scoring fails again and again")


def test_what_hangs_in_a_child_of_its_own_leaves_nothing_behind() -> None:
    async def main() -> None:
        children: set[int] = set()
        async with started_judge(config(timeout_s=1.0)) as judge:
            hung = asyncio.create_task(score(judge, measure="sleep with a child"))
            while not children and not hung.done():
                await asyncio.sleep(0.01)
                children = children.union(*(descendants(busy.pid) for busy in judge._busy))
            with pytest.raises(PluginError, match="was not done after"):
                await hung
            assert children
            assert not await asyncio.to_thread(wait_until_dead, children, 5.0)

    asyncio.run(main())


def test_an_episode_that_is_given_up_leaves_no_process_at_its_work() -> None:
    async def main() -> tuple[list[int], float]:
        async with started_judge(config(timeout_s=30.0, workers=2)) as judge:
            hung = [asyncio.create_task(score(judge, measure="sleep")) for _ in range(4)]
            while len(judge._busy) < 2:
                await asyncio.sleep(0.01)
            started = [process.pid for process in judge._busy]
            for episode in hung:
                episode.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
            scored = await score(judge)
        return started, scored.scores["exact_match"]

    started, exact = asyncio.run(main())

    assert exact == 1.0
    assert not alive(started)


def test_slow_rewards_of_more_episodes_than_processes_lose_nothing() -> None:
    async def main() -> tuple[list[Scored], int]:
        async with started_judge(config(workers=2)) as judge:
            scored = await asyncio.gather(*(score(judge, term="slow") for _ in range(8)))
            return scored, judge._idle.qsize()

    scored, processes = asyncio.run(main())

    assert [one.step_rewards.tolist() for one in scored] == [[0.0, 1.0]] * 8
    assert processes <= 2


def test_processes_are_started_while_all_others_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.rewards.judge.pool._PATIENCE_S", 0.1)

    async def main() -> None:
        async with started_judge(config(timeout_s=20.0)) as judge:
            await asyncio.gather(*(score(judge, term=f"meet {tmp_path}") for _ in range(4)))

    asyncio.run(main())

    assert len(list(tmp_path.glob("*.met"))) >= 3


def test_quick_rewards_share_a_process() -> None:
    async def main() -> int:
        async with started_judge(config()) as judge:
            await asyncio.gather(*(score(judge) for _ in range(24)))
            return judge._idle.qsize()

    assert asyncio.run(main()) <= 2


def test_an_episode_that_no_process_was_free_for_says_what_they_are_at() -> None:
    settings = replace(config(workers=1, timeout_s=9.0), transport=Transport(lease_grace_s=10.0))

    async def main() -> None:
        async with started_judge(settings) as judge:
            slow = asyncio.create_task(score(judge, term="sleep"))
            while not judge._busy:
                await asyncio.sleep(0.01)
            with pytest.raises(PluginError) as failure:
                await score(judge)
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            assert re.fullmatch(
                r"rewards of task 't': no judge process was free for 1 s; all 1 are busy with "
                rf"rewards.terms: '{MODULE}:term' \(longest: 1.\d s\); raise rewards.workers or "
                r"make it faster",
                str(failure.value),
            )
            assert (await score(judge)).scores["exact_match"] == 1.0

    asyncio.run(main())


def test_what_a_term_prints_cannot_fill_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with started_judge(config(timeout_s=10.0)) as judge:
            for _ in range(2):
                await score(judge, term="flood")

    asyncio.run(main())

    printed = capfd.readouterr().err
    assert printed.startswith("\N{SYMBOL FOR ESCAPE}x")
    assert printed.endswith("[a judge process of rewards printed 64 KiB: the rest is dropped]\n")
    assert len(printed) < (64 << 10) + 100


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (", r"cannot import 'judged_for_test' .* SyntaxError"),
        (
            "raise SystemExit(2)",
            r"cannot import 'judged_for_test' .* SystemExit: 2",
        ),
        ("import os; os._exit(5)", r"kind 'judged_for_test:Kind' ended its process with exit code"),
        ("Kind = 3", r"tasks.kinds: 'judged_for_test:Kind' has no method 'question'"),
    ],
)
def test_what_cannot_be_imported_is_a_mistake_of_the_configuration(
    module: Path, source: str, message: str
) -> None:
    (module / HERE).write_text(source)

    async def main() -> None:
        async with started_judge(config()):
            pass

    with pytest.raises(ConfigError, match=message):
        asyncio.run(main())


def test_a_judge_that_does_not_start_any_more_is_tried_later_and_then_given_up(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    monkeypatch.setattr("common.restarts.BUDGET", 2)
    told: list[str] = []
    mending = Mending(told.append)

    async def break_and_crash(judge: Judge) -> None:
        (module / HERE).write_text("raise RuntimeError('the disk is gone')")
        with pytest.raises(PluginError, match="died of SIGSEGV"):
            await score(judge, measure="crash")

    async def main() -> None:
        async with started_judge(config(workers=1), None, mending) as judge:
            await break_and_crash(judge)
            with pytest.raises(PluginError, match="the disk is gone"):
                await score(judge)
            (module / HERE).write_text(SOURCE)
            await score(judge)
            await break_and_crash(judge)
            with pytest.raises(PluginError, match="the disk is gone"):
                await score(judge)
            assert mending.given_up is None
            for _ in range(2):
                with pytest.raises(MachineError, match=r"the disk is gone.*after 2 restarts"):
                    await score(judge)

    asyncio.run(main())

    assert [text.partition(":")[0] for text in told] == [
        "a judge process is replaced", "a judge process did not start",
    ] * 2  # fmt: skip
    assert "died of SIGSEGV" in told[0]
    assert "the disk is gone" in told[1]
    assert mending.given_up is not None


def test_a_judge_dies_with_its_actor(module: Path) -> None:
    program = (
        "import asyncio\n"
        "from actors.rewards.judge.pool import Judge\n"
        "from common.config import Config, Rewards\n"
        "from common.wire.records import Outcome, Step, Task\n"
        "async def main():\n"
        f"    judge = Judge(Config(rewards=Rewards(terms={{'{MODULE}:term': 1.0}})))\n"
        "    await judge.start()\n"
        "    process = judge._idle.get_nowait()\n"
        "    judge._idle.put_nowait(process)\n"
        "    print(process.pid, flush=True)\n"
        "    task = Task(task_id='t', question='q', answers=('a',), details={'term': 'spin'})\n"
        "    step = Step(action='', code=None, observation='')\n"
        "    await judge.score(task, None, (step,), Outcome.SUBMITTED)\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), str(module)])
    actor = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert actor.stdout is not None
    judge = int(actor.stdout.readline())
    assert alive({judge})

    actor.send_signal(signal.SIGKILL)
    actor.wait()
    actor.stdout.close()

    assert not wait_until_dead({judge}, 5.0)
