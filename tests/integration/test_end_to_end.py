"""Whole runs through ``lzero train``: real policy server, actors, kernels and learner."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from launch.data.world.tiny_model import untie, write_initial_model
from launch.starters.specs import own_network_works
from learner.checkpoints.files import find_damage
from tests.listeners import as_nobody, attempts_on, listening
from tests.process_tree import descendants
from tests.waiting import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
PRESET = REPOSITORY / "launch" / "presets" / "quickstart.toml"
WARM_START = PRESET.with_name("warmstart")
DEADLINE_S = 300.0
STOP_S = 10.0
SMALL = (
    "run.steps=4",
    "world.train_tasks=200",
    "learner.groups=4",
    "learner.group_size=4",
    "learner.checkpoint_every=1",
    "actors.episodes=24",
    "agent.max_steps=3",
    "evaluation.per_family=4",
    "evaluation.greedy_per_family=0",
    "evaluation.control=2",
    "evaluation.during_every=1",
)

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]


class Command:
    """A running ``lzero train`` on a small run in ``folder``."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        settings = [f"run.folder={folder}", *SMALL]
        self.run = folder / "quickstart"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "launch.cli", "train", str(PRESET)),
                *(word for setting in settings for word in ("--set", setting)),
                *arguments,
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for ``what``, which must come before the command ends."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            if self.process.poll() is not None:
                pytest.fail(f"the command ended before {what}:\n{self.finish()}")
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
            time.sleep(0.05)

    def finish(self) -> str:
        """Wait for the end; all it printed."""
        output, errors = self.process.communicate(timeout=DEADLINE_S)
        return output + errors

    def processes(self) -> dict[int, str]:
        """Command lines of the processes that belong to the run, by id."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if str(self.run) in words:
                    found[int(entry.name)] = words
        return found

    def learner_rank(self) -> int:
        """The process id of a learner rank (not of the torchrun above it)."""
        ranks = [
            pid
            for pid, words in self.processes().items()
            if "-m learner.main" in words and "launch.starters.ranks" not in words
        ]
        return ranks[0]


@contextmanager
def lzero_train(folder: Path, *arguments: str) -> Iterator[Command]:
    command = Command(folder, *arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.terminate()
            command.process.communicate(timeout=2 * STOP_S)


def log_of(command: Command) -> str:
    return (command.run / "logs" / "learner.log").read_text()[-3000:]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_goes_on_when_its_learner_is_killed_and_when_it_is_killed_itself(
    tmp_path: Path,
) -> None:
    with lzero_train(tmp_path) as first:
        check_nobody_else_gets_in(first)
        first.wait_until((first.run / "checkpoints" / "step-000001").exists, "the first step")
        check_nothing_is_compiled_for_this_start_alone(first)
        check_people_find_every_process(first)
        os.kill(first.learner_rank(), signal.SIGKILL)
        first.wait_until(
            lambda: (
                "checkpoint loaded" in log_of(first)
                and (first.run / "checkpoints" / "step-000002").exists()
            ),
            "a learner that goes on",
        )
        first.process.kill()
        output = first.finish()

    assert "learner was ended by signal 9 (SIGKILL) unexpectedly, see " in output
    wait_for(lambda: first.processes() == {}, timeout_s=STOP_S)

    link = first.run / "private"
    left = link.readlink()
    changed = ("kernel.launcher=jupyter", "learner.ranks=2")
    words = [word for setting in changed for word in ("--set", setting)]
    with lzero_train(tmp_path, "--resume", *words) as second:
        second.wait_until(lambda: link.is_symlink() and link.readlink() != left, "a new place")
        check_nobody_else_gets_in(second)
        output = second.finish()

    assert second.process.returncode == 0, output
    assert "evaluating before training" not in output
    assert second.processes() == {}
    check_finished_run(second.run)
    summary = read_json(second.run / "summary.json")
    assert summary["learner"]["ranks"] == 2
    assert [text.partition(" was ended by")[0] for text in summary["restarts"]] == ["learner"]


def check_people_find_every_process(command: Command) -> None:
    """Each process of the run names its module and the run folder, its starters aside."""
    own = [
        words
        for words in command.processes().values()
        if not re.search("launch[./]starters", words)
    ]
    for module in (
        "-m actors.main",
        "-m actors.inference.server",
        "-m learner.main",
        "learner.checkpoints.writer",
    ):
        assert sum(module in words for words in own) == 1, (module, own)


def check_nobody_else_gets_in(command: Command) -> None:
    """All sockets are in the private folder, but for collectives without a network of their own."""
    told = command.run / "private" / "coordinator.json"
    command.wait_until(told.exists, "the coordinator listens")
    private = told.parent.readlink()
    found = listening(descendants(command.process.pid) | {command.process.pid})
    outside = {(pid, where) for pid, where in found if not where.startswith(f"{private}/")}
    if own_network_works():
        assert outside == set()
    for pid, where in outside:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().lower()
        assert where.startswith("tcp 127.0.0.1:"), (words, where)
        assert b"learner.main" in words or b"vllm" in words, (words, where)
    assert {f"{private}/{name}" for name in ("s0", "coordinator", "weights")} <= {
        where for _, where in found
    }
    if os.geteuid() == 0:
        assert set(as_nobody(attempts_on(private))) == {"PermissionError"}


def check_nothing_is_compiled_for_this_start_alone(command: Command) -> None:
    """It takes seconds, and the folder goes with the run."""
    assert list((command.run / "private").resolve().glob("torchinductor_*/*")) == []


def check_finished_run(run: Path) -> None:
    """What every finished run leaves."""
    summary = read_json(run / "summary.json")
    assert summary["status"] == "finished"
    assert summary["weight_versions"] == 5
    assert summary["heldout"]["one_hop"]["n"] == summary["heldout"]["two_hop"]["n"] == 4
    trajectories, staleness = summary["trajectories"], summary["staleness"]
    assert trajectories["trained"] == 4 * 16
    assert trajectories["started"] == (
        trajectories["trained"] + sum(trajectories["dropped"].values()) + trajectories["open"]
    )
    assert 0 <= staleness["max"] <= staleness["bound"]
    assert summary["logprob_mismatch"]["tokens"] > 0
    assert summary["logprob_mismatch"]["mean_abs"] <= 1e-4
    assert summary["sandbox"]["cells_executed"] > 0
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert set(records[-1]["heldout"]) == {"one_hop", "two_hop"}
    assert [record["trajectories"] for record in records] == [16, 16, 16, 16]
    trained = [json.loads(line) for line in (run / "batches.jsonl").read_text().splitlines()]
    stored = {
        json.loads(line)["trajectory_id"]
        for part in (run / "trajectories").glob("part-*.jsonl")
        for line in part.read_text().splitlines()
    }
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    assert {name for line in trained for name in line["trajectories"]} <= stored
    assert "<svg" in (run / "report.html").read_text()
    assert run.stat().st_mode & 0o777 == 0o700
    check_strict_json(run)
    assert (run / "checkpoints" / "step-000004" / "hf" / "config.json").is_file()


def check_strict_json(run: Path) -> None:
    """Every JSON file of a run is JSON for every reader."""
    for file in (*run.rglob("*.json"), *run.rglob("*.jsonl")):
        text = file.read_text(encoding="utf-8")
        for part in text.splitlines() if file.suffix == ".jsonl" else [text]:
            json.loads(part, parse_constant=lambda name: pytest.fail(f"{file} holds {name}"))  # noqa: B023


@pytest.mark.nightly
def test_ctrl_c_ends_a_whole_run_within_ten_seconds(tmp_path: Path) -> None:
    with lzero_train(tmp_path) as command:
        command.wait_until((command.run / "metrics.jsonl").exists, "the first step")

        asked = time.monotonic()
        command.process.send_signal(signal.SIGINT)
        output = command.finish()

    assert time.monotonic() - asked < STOP_S
    assert command.process.returncode == 130
    assert "interrupted; " in output
    assert "with: lzero train" in output
    assert command.processes() == {}
    assert read_json(command.run / "state.json")["status"] == "interrupted"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("number", "everybody", "ranks"),
    [(signal.SIGTERM, False, 2), (signal.SIGUSR1, True, 1), (signal.SIGTERM, True, 2)],
    ids=["the command", "every process", "every process of two ranks"],
)
def test_a_run_that_is_asked_to_stop_saves_and_says_that_it_can_go_on(
    tmp_path: Path, number: signal.Signals, everybody: bool, ranks: int
) -> None:
    settings = ("--set", f"learner.ranks={ranks}", "--set", "learner.checkpoint_every=100")
    with lzero_train(tmp_path, *settings) as command:
        command.wait_until((command.run / "metrics.jsonl").exists, "the learner listens")
        command.wait_until((command.run / "metrics.jsonl").read_text, "the first step")

        below = descendants(command.process.pid) if everybody else set()
        for pid in (command.process.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        output = command.finish()

    saved = list((command.run / "checkpoints").glob("step-??????"))
    assert command.process.returncode == 75, output
    assert f"asked to stop ({number.name})" in output
    assert [find_damage(path) for path in saved] == [[]], output + log_of(command)
    assert f"checkpoint {saved[0].name} is kept; go on with: lzero train" in output
    assert command.processes() == {}
    assert read_json(command.run / "state.json")["status"] == "interrupted"

    with lzero_train(tmp_path, *settings, "--resume") as resumed:
        output = resumed.finish()
    assert resumed.process.returncode == 0, output
    check_finished_run(resumed.run)


@pytest.mark.nightly
def test_an_untrained_model_is_said_to_learn_nothing(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WARM_START)
    write_initial_model(tmp_path / "untrained", tokenizer, seed=0)
    untie(tmp_path / "untrained")
    settings = [f"model.path={tmp_path / 'untrained'}", "evaluation.during_every=0"]

    with lzero_train(tmp_path, *(w for text in settings for w in ("--set", text))) as command:
        output = command.finish()

    assert command.process.returncode == 0, output
    run = command.run
    summary = read_json(run / "summary.json")
    log = (run / "logs" / "learner.log").read_text()
    unparsable, no_signal = summary["alerts"]
    assert unparsable.startswith(
        "nothing is learned: in steps 1 to 4 100% of the actions do not parse"
    )
    assert no_signal.startswith("nothing is learned: in steps 1 to 4 no group had a signal")
    assert "nothing is learned: in steps 1 to 4 100% of the actions do not parse" in log
    assert "nothing is learned: in steps 1 to 4 no group had a signal" in output
    assert "Nothing is learned: in steps 1 to 4" in (run / "report.html").read_text()
