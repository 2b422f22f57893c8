"""A learner that is killed again and again ends where one that was not killed does."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from learner.coordination.changes import Accepted, Taken, from_record
from learner.journal.format import read_header
from learner.journal.segments import read_place, recover, segment_files

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS, BATCH = 7, 6
NIGHTLY = pytest.mark.nightly


RANKS = [pytest.param(["ranks"], id="ranks", marks=NIGHTLY)]
AT_MOMENTS = [*RANKS, pytest.param([], id="moments")]
EVERY = [*AT_MOMENTS, *(pytest.param([str(n)], id=f"seed{n}", marks=NIGHTLY) for n in range(3))]
"""Each begins with the one before: pytest tells by its place what ``runs`` was made for."""


@pytest.fixture(scope="module", params=EVERY)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    child = Path(__file__).with_name("journal_child.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(child), str(folder), *request.param], cwd=REPOSITORY,
        env=environment, timeout=500, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-1000:]
    return folder


def result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def members(lease_ids: list[str]) -> list[str]:
    """Group and sample of each, without the attempt."""
    return [lease_id.rpartition("-")[0] for lease_id in lease_ids]


def batches(folder: Path) -> list[tuple[int, list[str]]]:
    lines = (folder / "batches.jsonl").read_text().splitlines()
    return [(row["step"], members(row["trajectories"])) for row in map(json.loads, lines)]


def test_the_weights_are_those_of_the_run_that_was_not_killed(runs: Path) -> None:
    assert result(runs / "killed")["digest"] == result(runs / "plain")["digest"]


def test_batches_and_their_order_are_the_same(runs: Path) -> None:
    plain = batches(runs / "plain")
    assert len(plain) == STEPS
    assert all(len(ids) == BATCH for _, ids in plain)
    killed = dict(batches(runs / "killed"))
    assert killed == {step: ids for step, ids in plain if step in killed}
    assert max(killed) == STEPS


def test_nothing_accepted_is_sampled_again_and_nothing_is_trained_twice(runs: Path) -> None:
    found = recover(runs / "killed" / "journal", since=0)
    changes = [from_record(read_place(place)) for place in found.places]
    accepted = [c.trajectory.trajectory_id for c in changes if isinstance(c, Accepted)]
    taken = [c for c in changes if isinstance(c, Taken)]

    assert found.notes == ()
    assert [batch.version for batch in taken] == list(range(STEPS))
    trained = [trajectory for batch in taken for trajectory in batch.trajectories]
    assert sorted(trained) == sorted(accepted)
    assert max(Counter(members(accepted)).values()) == 1
    sampled = (runs / "killed" / "sampled.txt").read_text().split()
    assert set(accepted) <= set(sampled)
    assert max(Counter(sampled).values()) == 1, "no lease was worked on twice"


def test_every_lease_is_accounted_for(runs: Path) -> None:
    killed, plain = result(runs / "killed"), result(runs / "plain")

    assert killed["trained"] == plain["trained"] == plain["started"] == STEPS * BATCH
    assert plain["dropped"] == {}
    assert set(killed["dropped"]) <= {"lost_at_restart"}
    assert killed["started"] == killed["trained"] + killed["dropped"].get("lost_at_restart", 0)


@pytest.mark.parametrize("runs", AT_MOMENTS, indirect=True)
def test_the_last_life_trained_from_checkpoint_and_journal_alone(runs: Path) -> None:
    """Every batch was on the disk when it was killed the last time."""
    last = result(runs / "killed")

    assert last["first_step"] + last["replayed"] == STEPS
    assert last["first_step"] > 0
    assert last["replayed"] > 0


@pytest.mark.parametrize("runs", RANKS, indirect=True)
def test_another_number_of_ranks_trains_the_same_batches(runs: Path) -> None:
    ranks, killed = result(runs / "ranks"), result(runs / "killed")

    assert dict(batches(runs / "ranks")) == dict(batches(runs / "plain"))
    assert {**ranks, "digest": ""} == {**killed, "digest": ""}


def test_what_no_kept_checkpoint_needs_is_gone(runs: Path) -> None:
    """One checkpoint is kept, of the last step; what came before it was in other segments."""
    (kept,) = (runs / "plain" / "checkpoints").iterdir()
    (left,) = segment_files(runs / "plain" / "journal")

    assert kept.name == "step-000007"
    assert read_header(left.read_bytes()).checkpoint == STEPS
    assert len(segment_files(runs / "killed" / "journal")) > 1
