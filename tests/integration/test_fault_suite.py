"""Runs of real processes that are killed, stopped, cut off and filled up lose and double nothing.

Each seed is a schedule of faults (``tests.faults.schedules``); ``LZERO_FAULTS_SEED`` plays that of
one seed alone. With ``LZERO_FAULTS_JSON=FILE`` the seconds that each role took to work again are
written there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.recoveries import report_of, write_report
from tests.faults.rig import Played, Recovery, play
from tests.faults.schedules import SHORT, schedule_of

ALL = 200
ONE = os.environ.get("LZERO_FAULTS_SEED")
SEEDS = [int(ONE)] if ONE else range(ALL)
LONG = (pytest.mark.nightly, pytest.mark.slow)


@pytest.fixture(scope="module")
def played() -> Iterator[list[Played]]:
    """What came of each schedule."""
    found: list[Played] = []
    yield found
    write_report(found)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if ONE or seed < SHORT else LONG) for seed in SEEDS]
)
def test_nothing_is_lost_or_doubled_or_left(
    seed: int, tmp_path: Path, played: list[Played]
) -> None:
    one = play(tmp_path / "run", schedule_of(seed))

    played.append(one)
    if one.skipped:
        pytest.skip(f"no disk of its own may be mounted here, so not done: {one.skipped}")


def test_the_table_of_recoveries_is_counted_by_role_and_kind() -> None:
    some = [Recovery("actor", "kill", 1.0), Recovery("actor", "kill", 3.0)]
    other = [Recovery("learner", "pause", 0.5)]

    figures = report_of([Played(recoveries=some), Played(recoveries=other)]).figures

    assert figures == {
        "actor_kill_s_p50": 2.0, "actor_kill_s_max": 3.0, "actor_kill_count": 2,
        "learner_pause_s_p50": 0.5, "learner_pause_s_max": 0.5, "learner_pause_count": 1,
    }  # fmt: skip
