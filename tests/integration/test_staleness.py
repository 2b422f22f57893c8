"""Learning from stale data: what holds for three seeds and is known to be real."""

import pytest

from benchmarks.bench_staleness import FRESH, Arm, run_all, summarise
from benchmarks.staleness import World


@pytest.mark.slow
def test_uncorrected_training_on_stale_data_loses_and_apg_does_not() -> None:
    fresh = Arm(method=FRESH, advantage="reinforce_pp", staleness=0)
    corrected = Arm(method="apg", advantage="reinforce_pp", staleness=8)
    uncorrected = Arm(method="none", advantage="reinforce_pp", staleness=8)

    cells = summarise(run_all([fresh, corrected, uncorrected], seeds=3, world=World()))

    assert cells[corrected].reward > 0.95 * cells[fresh].reward, cells
    assert cells[uncorrected].reward < 0.9 * cells[corrected].reward, cells
