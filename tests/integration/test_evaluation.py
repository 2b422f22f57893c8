"""``lzero eval`` against a real OpenAI-compatible server: every mode, resuming, comparing."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.tools.search.index import build_index
from common.episode_record import read_evaluation
from common.tasks import write_tasks
from common.wire.records import Task
from launch.cli import main
from launch.evaluate.folder import EvalFolder
from tests.chat_server import ChatServer, Messages, Reply, Script
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox

BORN = {"Anna Keller": "Port Alden", "Ida Brandt": "Leeds", "Tom Ekman": "Visby"}
TASKS = [
    Task(
        task_id=f"born-{number}",
        question=f"Where was {name} born?",
        answers=(town,),
        labels={"family": "first" if number == 0 else "others"},
    )
    for number, (name, town) in enumerate(BORN.items())
]
SUMS = [
    Task(task_id=f"sum-{n}", question=f"What is {n} + {n}?", answers=(str(2 * n),), kind="number")
    for n in (2, 3)
]
RIGHT, WRONG = "She left early. Answer: Port Alden", "I think it was in Rome.\n\nAnswer: Rome"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_tasks(TASKS, tmp_path / "towns.jsonl")
    write_tasks(SUMS, tmp_path / "sums.jsonl")
    return tmp_path


def evaluated(
    capsys: pytest.CaptureFixture[str], server: ChatServer, *arguments: object, status: int = 0
) -> dict[str, Any]:
    """What ``lzero eval --json`` prints; nothing else is on standard output."""
    found = main(["eval", "--url", server.url, "--json", *map(str, arguments)])
    printed = capsys.readouterr()
    assert found == status, printed.err
    answer: dict[str, Any] = json.loads(printed.out)
    return answer


def knows(*names: str) -> Script:
    """A model that knows where these people were born, and can double."""

    def answer(messages: Messages) -> str:
        asked = messages[-1]["content"]
        if "What is" in asked:
            number = int(asked.split("What is ")[1].split()[0])
            return f"{number} and {number}.\nAnswer: {2 * number} apples"
        name = next(name for name in BORN if name in asked)
        return f"Let me think.\nAnswer: {BORN[name] if name in names else 'Rome'}"

    return answer


def test_direct_answers_are_read_scored_and_counted(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ("--tasks", files / "towns.jsonl", files / "sums.jsonl")
    with ChatServer(knows("Anna Keller", "Ida Brandt")) as server:
        result = evaluated(
            capsys, server, *tasks, "--mode", "direct", "--out", files / "out", "--price-out", 2
        )
        prompt = server.requests[0]["messages"][-1]["content"]

    towns, sums = result["sets"]["towns"], result["sets"]["sums"]
    assert prompt.startswith("Where was")
    assert "Answer: ..." in prompt
    assert towns["scores"]["exact_match"]["mean"] == pytest.approx(2 / 3)
    assert towns["scores"]["squad_exact_match"]["mean"] == pytest.approx(2 / 3)
    assert towns["scores"]["exact_match"]["low"] < 2 / 3 < towns["scores"]["exact_match"]["high"]
    assert sums["scores"] == {
        "exact_match": pytest.approx({"mean": 1.0, "low": 0.342, "high": 1.0}, abs=1e-3)
    }
    assert result["overall"]["tasks"] == 5
    assert result["mean_of_sets"]["exact_match"] == pytest.approx((2 / 3 + 1) / 2)
    assert set(result["families"]["towns"]) == {"first", "others"}
    assert towns["prompt_tokens"] > towns["generated_tokens"] > 0
    assert towns["cost"] == pytest.approx(towns["generated_tokens"] * 2e-6)
    episodes = read_evaluation(files / "out" / "episodes.jsonl")
    assert {e.answer for e in episodes} == {"Port Alden", "Leeds", "Rome", "4", "6"}
    assert json.loads((files / "out" / "results.json").read_text()) == result


def test_an_agent_works_in_its_notebook_and_searches_the_corpus(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [{"title": name, "text": f"{name}, born in {town}."} for name, town in BORN.items()]
    (files / "pages.jsonl").write_text("\n".join(map(json.dumps, pages)))
    build_index(files / "pages.jsonl", files / "pages.sqlite")

    def script(messages: Messages) -> str:
        if messages[-1]["content"].startswith("<output>"):
            found = messages[-1]["content"].split("born in ")[1].split(".")[0]
            return f"<think>there</think><code>submit_final_answer({found!r})</code>"
        name = messages[-1]["content"].removeprefix("Where was ").removesuffix(" born?")
        return f"<think>look</think><code>print(search({name!r}))</code>"

    corpus = ("--corpus", files / "pages.sqlite")
    with ChatServer(script) as server:
        result = evaluated(
            capsys, server, "--tasks", files / "towns.jsonl", *corpus, "--out", files / "out"
        )

    towns = result["sets"]["towns"]
    assert towns["scores"]["exact_match"]["mean"] == 1.0
    assert (towns["steps"], towns["submitted"], towns["failed"]) == (2.0, 1.0, 0)
    assert result["settings"]["corpus_digest"]


def test_rag_puts_the_pages_that_were_found_before_the_question(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [{"title": name, "text": f"{name}, born in {town}."} for name, town in BORN.items()]
    (files / "pages.jsonl").write_text("\n".join(map(json.dumps, pages)))
    build_index(files / "pages.jsonl", files / "pages.sqlite")

    def script(messages: Messages) -> str:
        (message,) = messages
        pages, _, question = message["content"].partition("Question: Where was ")
        name = question.partition(" born?")[0]
        return "Answer: " + pages.split(f"{name}, born in ")[1].split(".")[0]

    with ChatServer(script) as server:
        options = ("--mode", "rag", "--corpus", files / "pages.sqlite", "--out", files / "out")
        result = evaluated(capsys, server, "--tasks", files / "towns.jsonl", *options)

    assert result["sets"]["towns"]["scores"]["exact_match"]["mean"] == 1.0


def test_the_same_command_goes_on_where_it_stopped_and_asks_failures_again(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--tasks", files / "towns.jsonl", "--mode", "direct", "--out", files / "out")

    def breaks(messages: Messages) -> str:
        if "Tom" in messages[-1]["content"]:
            return ""
        return knows(*BORN)(messages)

    with ChatServer(breaks) as server:
        first = evaluated(capsys, server, *options)
        asked = len(server.requests)
        lines = (files / "out" / "episodes.jsonl").read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if b"Tom" not in line]
        (cut,) = (line for line in lines if b"Tom" in line)
        failed = cut.replace(b'"outcome": "unparsable"', b'"outcome": "infrastructure"')
        (files / "out" / "episodes.jsonl").write_bytes(b"".join([*kept, failed]) + b'{"outc')
        server._script = knows(*BORN)
        again = evaluated(capsys, server, *options)

        assert first["sets"]["towns"]["submitted"] == pytest.approx(2 / 3)
        assert len(server.requests) == asked + 1
        assert "Tom" in server.requests[-1]["messages"][-1]["content"]
        assert again["sets"]["towns"]["scores"]["exact_match"]["mean"] == 1.0
        assert again["sets"]["towns"]["episodes"] == 3


def interrupt_when(happened: Callable[[], bool]) -> None:
    """Press Ctrl-C then; waits at most 30 s."""
    wait_for(happened, timeout_s=30)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_what_was_asked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tasks", str(files / "towns.jsonl"), "--mode", "direct", "--parallel", "1"]
    with ChatServer(knows(*BORN), faults=[None, "hang"]) as server:
        command = ["eval", "--url", server.url, *options, "--out", str(files / "out")]
        press = threading.Thread(target=interrupt_when, args=(lambda: len(server.requests) == 2,))
        press.start()
        status = main(command)
        press.join()
        said = capsys.readouterr()
        kept = [episode.key[1] for episode in read_evaluation(files / "out" / "episodes.jsonl")]
        again = main(command)

    assert (status, said.out, again) == (130, "", 0)
    assert "the same command goes on" in said.err
    assert kept == ["born-0"]
    assert "1 of 3 questions have been asked already" in capsys.readouterr().err


def test_a_folder_made_under_other_settings_is_refused_and_the_difference_is_named(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--tasks", files / "towns.jsonl", "--mode", "direct", "--out", files / "out")
    with ChatServer(knows()) as server:
        evaluated(capsys, server, *options)
        status = main(
            [
                "eval",
                "--url",
                server.url,
                *map(str, options),
                "--limit",
                "2",
                "--temperature",
                "0.5",
            ]
        )
        said = capsys.readouterr().err
        write_tasks(TASKS[1:], files / "towns.jsonl")
        other = main(["eval", "--url", server.url, *map(str, options)])

    assert (status, other) == (2, 2)
    assert "limit was 0, now 2; temperature was 0.0, now 0.5" in said
    assert "sets[0].digest was" in capsys.readouterr().err
    assert "Traceback" not in said


def test_samples_give_pass_at_k_and_a_second_result_is_compared_in_pairs(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def every_other(messages: Messages) -> str:
        nonlocal count
        count += 1
        return RIGHT if count % 2 else WRONG

    only = [Task(task_id="one", question="Where?", answers=("Port Alden",))]
    write_tasks([*only, *TASKS[1:]], files / "two.jsonl")
    tasks = ("--tasks", files / "two.jsonl", "--mode", "direct", "--limit", 1)
    with ChatServer(every_other) as server:
        result = evaluated(capsys, server, *tasks, "--samples", 4, "--out", files / "a")
        server._script = lambda messages: RIGHT
        second = evaluated(capsys, server, *tasks, "--out", files / "b", "--against", files / "a")

    passes = result["sets"]["two"]["pass_at"]
    assert {k: round(one["mean"], 4) for k, one in passes.items()} == {
        "1": 0.5,
        "2": round(1 - 1 / 6, 4),
        "4": 1.0,
    }
    assert (result["sets"]["two"]["tasks"], result["sets"]["two"]["episodes"]) == (1, 4)
    assert server.requests[0]["temperature"] == 0.6
    assert server.requests[-1]["temperature"] == 0.0
    difference = second["against"]["sets"]["two"]["exact_match"]
    assert (difference["mean"], difference["n"]) == (0.5, 1)


def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_asked(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--mode", "direct", "--against", str(files / "sums")]
    with ChatServer(knows()) as server:
        sums = ("--tasks", files / "sums.jsonl", "--mode", "direct", "--out", files / "sums")
        evaluated(capsys, server, *sums)
        asked = len(server.requests)
        towns = ["--tasks", str(files / "towns.jsonl"), "--out", str(files / "towns")]
        status = main(["eval", "--url", server.url, *towns, *options])

    assert (status, len(server.requests)) == (2, asked)
    assert "no task that was asked there is asked here, too" in capsys.readouterr().err


def test_a_suite_shows_published_tables_and_names_what_is_missing(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "data" / "hotpotqa").mkdir(parents=True)
    write_tasks(TASKS, files / "data" / "hotpotqa" / "tasks.jsonl")
    suite = ["--suite", "qa", "--data", str(files / "data"), "--mode", "direct"]
    with ChatServer(knows("Ida Brandt")) as server:
        status = main(["eval", "--url", server.url, *suite, "--out", str(files / "out")])
    shown = capsys.readouterr().out
    page = (files / "out" / "report.html").read_text()

    assert status == 0
    assert "Search-R1" in shown
    assert "ZeroSearch" in shown
    assert "43.3" in shown
    assert "github.com/StonyBrookNLP/musique" in shown
    assert "hotpotqa" in page
    assert "7B Search-R1-base PPO" in page
    assert "Ida Brandt" in page
    assert "http://" not in page.replace(server.url, "")
    assert "<script" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "URL"], "name either questions"),
        (["--url", "URL", "MODEL", "--tasks", "TASKS"], "either a model folder or a run, or --url"),
        (["--url", "URL", "--tasks", "TASKS", "--samples", "0"], "--samples must be at least 1"),
        (["--url", "URL", "--tasks", "TASKS", "--mode", "rag"], "--corpus"),
        (["--url", "URL", "--tasks", "none.jsonl"], "none.jsonl does not exist"),
        (["--url", "URL", "--tasks", "TASKS", "TASKS"], "would both be called"),
        (["--url", "URL", "--suite", "qa", "--data", "/nowhere"], "hotpotqa.github.io"),
        (["--url", "URL", "--tasks", "TASKS", "--greedy"], "--greedy goes with --world-seed"),
        (["--url", "URL", "--tasks", "TASKS", "--set", "agent.max_stepps=3"], "max_stepps"),
        (["--url", "URL", "--tasks", "TASKS", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (
            ["--url", "URL", "--tasks", "TASKS", "--model", "other", "--against", "/"],
            "settings.json",
        ),
        (["--url", "URL", "--tasks", "JUDGED"], "rewards.judge names no table"),
        (["nothing-here", "--tasks", "TASKS"], "nothing-here does not exist"),
        (["--world-seed", "7"], "--world-seed needs a run"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    arguments: list[str], said: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks([replace(TASKS[0], kind="judged")], files / "judged.jsonl")
    with ChatServer(knows()) as server:
        named = {"URL": server.url, "TASKS": str(files / "towns.jsonl"), "MODEL": str(files)}
        named["JUDGED"] = str(files / "judged.jsonl")
        given = [named.get(argument, argument) for argument in arguments]
        status = main(["eval", *given, *(["--out", str(files / "out")] * ("URL" in arguments))])
        assert not server.requests

    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert said in printed.err
    assert not (files / "out").exists()


def test_a_server_that_breaks_down_ends_it_with_its_words_and_nothing_is_lost(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks(TASKS * 1, files / "towns.jsonl")
    faults = [None, *[(400, {"error": {"message": "out of cheese"}})] * 2]
    options = ["--mode", "direct", "--out", str(files / "out"), "--parallel", "1"]
    with ChatServer(knows(*BORN), faults=faults) as server:
        command = ["eval", "--url", server.url, "--tasks", str(files / "towns.jsonl"), *options]
        status = main(command)
        said = capsys.readouterr().err
        again = main(command)

    assert (status, again) == (1, 0)
    assert "2 episodes failed" in said
    assert re.search("2 x .*out of cheese", said)
    results = json.loads(EvalFolder(files / "out").results.read_text())
    assert results["sets"]["towns"]["scores"]["exact_match"]["mean"] == 1.0


def test_thoughts_that_come_apart_from_the_answer_are_no_part_of_it(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(text="Answer: Port Alden", reasoning="Perhaps Rome. Answer: Rome")
    with ChatServer(lambda messages: reply) as server:
        options = ("--mode", "direct", "--limit", 1, "--out", files / "out")
        result = evaluated(capsys, server, "--tasks", files / "towns.jsonl", *options)

    assert result["sets"]["towns"]["scores"]["exact_match"]["mean"] == 1.0
