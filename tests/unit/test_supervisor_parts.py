"""The pure parts of the supervisor: how ends are described, and who descends from whom."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.starters.child import Child, ProcessSpec
from launch.starters.ends import describe_exit, killed_for_memory, last_lines
from launch.starters.guard import descendants
from launch.starters.specs import explain_torchrun


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "ended with exit code 3"),
        (-9, "was ended by signal 9 (SIGKILL)"),
        (143, "was ended by signal 15 (SIGTERM)"),
        (250, "ended with exit code 250"),
    ],
)
def test_an_exit_status_is_put_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def ended(log: Path, *, start: int, explain: Callable[[str], str] = str) -> Child:
    process = subprocess.Popen(["false"])
    process.wait()
    spec = ProcessSpec(name="learner", command=(), log=log, noise="noise", explain=explain)
    return Child(spec, process, start, killed_for_memory())


def test_last_lines_begin_at_this_attempt_and_end_at_the_noise(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n")
    start = log.stat().st_size
    with log.open("a") as file:
        file.write("one\n\ntwo\nnoise begins\nnoise\n")

    assert ended(log, start=start).tail().split("\n")[1:] == [
        "  | one",
        "  | two",
        "  | noise begins",
    ]
    assert ended(log, start=start).ending() == "learner ended with exit code 1 unexpectedly"
    assert last_lines(log, start=start) == ["one", "two", "noise begins", "noise"]
    assert last_lines(tmp_path / "missing") == []


def test_what_can_be_explained_is_the_cause_also_amid_the_noise(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\nnoise\nnoise -9\nnoise\n")
    child = ended(log, start=0, explain=lambda line: line.replace("noise -9", "rank 1 was ended"))

    assert child.tail().split("\n")[1:] == ["  | one", "  | rank 1 was ended"]
    assert child.ending() == "learner ended with exit code 1 unexpectedly (rank 1 was ended)"


def test_a_failed_rank_is_named_with_its_signal() -> None:
    line = (
        "E1121 10:39:46 20706 .venv/lib/torch/distributed/elastic/multiprocessing/api.py:1002] "
        "failed (exitcode: -9) local_rank: 1 (pid: 20735) of binary: python3"
    )

    assert explain_torchrun(line) == "rank 1 was ended by signal 9 (SIGKILL)"
    assert explain_torchrun("another line") == "another line"


def test_a_collective_that_hung_is_named_with_its_time() -> None:
    line = (
        "[rank1]:[E1121 10:39:46 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective "
        "operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, "
        "Timeout(ms)=1800000) ran for 1800051 milliseconds before timing out."
    )

    assert explain_torchrun(line).startswith(
        "a collective operation hung (ALLREDUCE): not every rank came to it within 1800 s"
    )


@pytest.mark.parametrize(
    ("text", "count"), [("a 1\noom_kill 3\nz 9\n", 3), ("a 1\n", 0), ("oom_kill\n", 0)]
)
def test_kills_for_want_of_memory_are_counted(tmp_path: Path, text: str, count: int) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text(text)

    assert killed_for_memory(counters) == count
    assert killed_for_memory(tmp_path / "none") == 0


def test_descendants_are_found_through_generations() -> None:
    parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)]

    assert sorted(descendants(2, parents)) == [3, 4]
    assert sorted(descendants(1, parents)) == [2, 3, 4, 5]
    assert descendants(6, parents) == []
