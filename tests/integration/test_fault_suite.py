"""Runs of real processes that are killed, stopped, cut off and filled up lose and double nothing.

Each seed is a schedule of faults (``tests.faults.schedules``); ``LZERO_FAULTS_SEED`` plays that of
one seed alone. All together write how long each role took to work again, as JSON.
"""

import os
from pathlib import Path

import pytest

from tests.faults.rig import play
from tests.faults.schedules import SHORT, schedule_of

pytestmark = pytest.mark.sandbox
ALL = 200
ONE = os.environ.get("LZERO_FAULTS_SEED")
SEEDS = (
    [int(ONE)]
    if ONE
    else [
        *range(SHORT),
        *(
            pytest.param(seed, marks=[pytest.mark.nightly, pytest.mark.slow])
            for seed in range(SHORT, ALL)
        ),
    ]
)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_or_left(seed: int, tmp_path: Path) -> None:
    play(tmp_path / "run", schedule_of(seed))
