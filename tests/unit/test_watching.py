"""``lzero status`` and ``lzero why`` read a run off its folder, whatever became of it."""

import dataclasses
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.run_status import Flow, MemberStatus, RunStatus, write_status
from common.telemetry.alert_lines import append_alert
from common.telemetry.process_totals import TrajectoryCounts
from common.waits.catalogue import Part, WaitKind
from common.waits.graph import Quiet
from common.waits.records import Node, Waiting, WaitReport
from launch.cli import EXIT_BAD_INPUT, main
from launch.run.folder import RunFolder, RunState, Status
from launch.watch.seen import look

S0, A0 = Node(Part.SERVER, "s0"), Node(Part.ACTOR, "a0")
LEARNER, BATCH = Node(Part.LEARNER), Node(Part.BATCH, "8")
LEASE = Node(Part.LEASE, "g000031-2-1")
WAITS = (
    Waiting(kind=WaitKind.BATCH, who=LEARNER, on=BATCH, seconds=41.0),
    Waiting(kind=WaitKind.LACKED_LEASE, who=BATCH, on=LEASE, seconds=44.0, detail="at actor a0"),
    Waiting(kind=WaitKind.GENERATION, who=LEASE, on=S0, seconds=39.0),
)


def status_of(*, age_s: float = -3600.0, **changes: Any) -> RunStatus:
    """Written so long ago; in the time to come, so that it is fresh however long a test takes."""
    status = RunStatus(
        written_at=time.time() - age_s,
        has_ended=False,
        step=7,
        steps=40,
        version=7,
        trajectories=TrajectoryCounts(
            started=130, finished=120, trained=112, dropped={"stale": 2}, open=16
        ),
        flow=Flow(seconds=60.0, trajectories_per_s=2.5, tokens_per_s=310.0),
        ready=3,
        open=9,
        wanted=4,
        depth=1.5,
        max_staleness=4,
        credit=0.75,
        buffered_bytes=3 << 20,
        learner=WaitReport(waits=WAITS[:1], counts={"batch": 1}),
        members=(
            MemberStatus(node=S0, state="current", heard_s=0.5, version=7),
            MemberStatus(
                node=A0, state="working", heard_s=0.25, leases=16,
                report=WaitReport(waits=WAITS[2:], counts={"generation": 16}, lag_s=0.5),
            ),
        ),
        others=0,
        waits=WAITS,
        silent=(Quiet(S0, 39.0, "has not answered"),),
        notes=(),
    )  # fmt: skip
    return dataclasses.replace(status, **changes)


@contextmanager
def a_run(folder: Path, how: Status, *, held: bool = False, **state: Any) -> Iterator[Path]:
    run = RunFolder(folder / "r1")
    run.path.mkdir()
    given = {"phase": "training", "phase_at": time.time() - 100, **state}
    run.write_state(RunState(status=how, started_at=1.0, **given))
    with (run.path / ".lock").open("wb") as lock:
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield run.path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def test_a_run_that_is_on_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_run(tmp_path, "running", held=True) as run:
        write_status(status_of(), run / "status.json")

        shown = printed(capsys, "status", str(run))
        assert "r1: running (training), step 0 of 40" in shown
        assert "2.5 trajectories/s, 310 tokens/s over the last 60 s" in shown
        assert "dropped: stale 2" in shown
        assert "servers bear 75% of the episodes" in shown
        assert "16 x generation (longest 39 s), event loop stood still for 0.5 s" in shown
        said = printed(capsys, "why", str(run))
        assert said.startswith(
            "learner waits 41 s for batch 8: lease g000031-2-1 at actor a0, which waits 39 s for "
            "policy server s0, which has not answered since "
        )
        assert "\n  3. lease g000031-2-1 waits 39 s for policy server s0\n" in said
        told = json.loads(printed(capsys, "why", str(run), "--json"))
        assert (told["ending"], told["root"]) == ("silent", {"part": "policy server", "name": "s0"})
        assert [wait["kind"] for wait in told["chain"]] == ["batch", "lacked_lease", "generation"]
        everything = json.loads(printed(capsys, "status", str(run), "--json"))
        assert everything["status"]["members"][1]["report"]["counts"] == {"generation": 16}


def test_a_learner_that_writes_no_more_is_silent_itself(tmp_path: Path) -> None:
    with a_run(tmp_path, "running", held=True, restarts=["learner was killed"]) as run:
        write_status(status_of(age_s=30.0), run / "status.json")
        sentence = look(run).sentence()
    assert sentence.startswith("learner, which has said nothing since ")
    assert sentence.endswith(" s); what was started again last: learner was killed")


def test_before_there_is_a_learner_the_phase_is_said(tmp_path: Path) -> None:
    with a_run(tmp_path, "running", held=True, phase="evaluating before training") as run:
        assert look(run).sentence().startswith("r1: evaluating before training, for 1")
        write_status(status_of(age_s=500.0), run / "status.json")
        assert look(run).sentence().startswith("r1: evaluating before training, for 1")


@pytest.mark.parametrize(
    ("how", "state", "sentence"),
    [
        ("finished", {}, "r1 ended well, after no step; its numbers are in summary.json"),
        ("interrupted", {}, "r1 was interrupted after no step, in: training"),
        ("failed", {"failure": "learner ended with 3"}, "r1 failed after no step: learner ended "
         "with 3; the first sign of trouble was: the disk is full"),
        ("running", {}, "r1 is not running any more: its command was killed after no step, in: "
         "training; see its logs, and go on with --resume"),
    ],
)  # fmt: skip
def test_of_a_run_that_is_over_it_is_said_how_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: Status, state: Any, sentence: str
) -> None:
    with a_run(tmp_path, how, **state) as run:
        append_alert(run / "alerts.jsonl", "the disk is full")
        write_status(status_of(has_ended=how == "finished"), run / "status.json")
        told = json.loads(printed(capsys, "why", str(run), "--json"))
        assert (told["sentence"], told["is_on"], told["chain"]) == (sentence, False, [])
        assert json.loads(printed(capsys, "status", str(run), "--json"))["sentence"] == sentence
        assert sentence in printed(capsys, "status", str(run), "--watch")


def test_what_is_no_run_or_of_another_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", str(tmp_path)]) == EXIT_BAD_INPUT
    assert "holds no run; give the folder of a run" in capsys.readouterr().err
    with a_run(tmp_path, "finished") as run:
        (run / "status.json").write_text('{"step": 1}')
        assert main(["status", str(run)]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert "status.json cannot be read: malformed RunStatus" in error
    assert "was it written by another version of l-zero?" in error


def test_names_of_members_steer_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = MemberStatus(node=Node(Part.ACTOR, "a\x1b[2J"), state="working")
    with a_run(tmp_path, "running", held=True) as run:
        write_status(status_of(members=(member,)), run / "status.json")
        assert "\x1b" not in printed(capsys, "status", str(run))
