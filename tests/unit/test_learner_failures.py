"""What ends a rank from below is named in one sentence that says what was kept and what to do."""

import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from common.config import Config
from common.config_file import save_config
from common.errors import LZeroError
from common.places import LEARNER, RENDEZVOUS
from common.plan_file import (
    LastWord,
    forget_ending,
    load_plan,
    save_plan,
    tell_ending,
    told_ending,
)
from common.stopping import STOP_SIGNALS
from launch.plan.topology import RunFiles, members, plan_run
from learner.engine.mesh import meeting_place
from learner.engine.optimizer import UpdateReport
from learner.failures import named
from learner.main import main as learn
from learner.reporting import SKIPPED_STEPS, GradientWatch
from learner.sft.config import Sft
from learner.sft.main import main as fine_tune


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "the GPU is out of memory: CUDA"),
        (MemoryError(), "the machine is out of memory: MemoryError"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "the machine is out of memory: [enforce fail]",
        ),
        (
            RuntimeError("[gloo/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv"),
            "a collective operation hung: not every rank came to it within 1800 s",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]"),
            "another rank of the learner is gone",
        ),
        (dist.DistBackendError("NCCL error in: x"), "another rank of the learner is gone"),
    ],
)
def test_a_failure_is_named_with_what_is_kept_and_what_to_do(
    error: BaseException, words: str
) -> None:
    failure = named(error)

    assert str(failure).startswith(words)
    assert "the checkpoints before are kept; " in str(failure)
    assert "\n" not in str(failure)


def test_a_fault_of_the_program_stays_one() -> None:
    assert named(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert named(ValueError("out of memory")) is None


BROKEN = UpdateReport(gradient_norm=float("nan"), learning_rate=1e-3, applied=False)
APPLIED = UpdateReport(gradient_norm=1.0, learning_rate=1e-3, applied=True)


@pytest.mark.parametrize("whole", [APPLIED, None], ids=["applied", "nothing to learn"])
def test_only_gradients_that_stay_broken_end_a_run(whole: UpdateReport | None) -> None:
    watch = GradientWatch()
    for update in ([BROKEN] * (SKIPPED_STEPS - 1) + [whole]) * 3 + [BROKEN] * (SKIPPED_STEPS - 1):
        watch.observe(update)

    with pytest.raises(LZeroError, match=rf"in {SKIPPED_STEPS} steps in a row \(last norm nan\)"):
        watch.observe(BROKEN)


def test_fine_tuning_that_runs_out_of_memory_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def run(config: Sft) -> None:
        raise MemoryError

    monkeypatch.setattr("learner.sft.main.run", run)
    words = ["--model", "m", "--traces", "t", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["learner.sft.main", *words])

    assert fine_tune() == 2
    assert "the machine is out of memory: MemoryError; " in caplog.text


def plan_in(folder: Path) -> Path:
    plan = plan_run(
        Config(), RunFiles(config=folder / "config.json", private=folder),
        {name: "k" for name in members(Config())},
    )  # fmt: skip
    return save_plan(plan)


@pytest.fixture
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_learner_says_of_what_it_would_only_end_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = plan_in(tmp_path)
    model = dataclasses.replace(Config().model, path=str(tmp_path / "nowhere"))
    save_config(dataclasses.replace(Config(), model=model), tmp_path / "config.json")
    words = ["--config", str(tmp_path / "config.json"), "--plan", str(path)]
    monkeypatch.setattr(sys, "argv", ["learner.main", *words])

    assert learn() == 2

    word = told_ending(load_plan(path), LEARNER)
    assert word is not None
    assert word.is_final
    assert "nowhere" in word.reason


def test_of_several_ranks_the_first_word_counts_but_a_final_one_more(tmp_path: Path) -> None:
    plan = load_plan(plan_in(tmp_path))
    words = [LastWord(reason=reason, is_final=reason == "c") for reason in "abcd"]
    told = []
    for word in words:
        tell_ending(plan, LEARNER, word)
        told.append(told_ending(plan, LEARNER))

    assert told == [words[0], words[0], words[2], words[2]]
    forget_ending(plan, LEARNER)
    assert told_ending(plan, LEARNER) is None


@pytest.mark.parametrize(("life", "file"), [("0", "ranks"), ("2", "ranks.2")])
def test_ranks_that_torchrun_starts_again_meet_in_another_file(life: str, file: str) -> None:
    environment = {RENDEZVOUS: "file:///p/ranks", "TORCHELASTIC_RESTART_COUNT": life}

    assert meeting_place(environment) == f"file:///p/{file}"
    assert meeting_place({}) is None
