"""Learning from stale data: what holds for three seeds and is known to be real."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from benchmarks.staleness import METHODS, UNBOUNDED, train

SEEDS = (0, 1, 2)


def final_reward(method: str, staleness: int) -> float:
    objective = replace(METHODS[method], advantage="reinforce_pp", advantage_clip=UNBOUNDED)
    return fmean(train(objective, staleness=staleness, seed=seed).reward for seed in SEEDS)


@pytest.mark.slow
def test_uncorrected_training_on_stale_data_loses_and_apg_does_not() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fresh = final_reward("apg", 0)
        corrected = final_reward("apg", 8)
        uncorrected = final_reward("none", 8)
    finally:
        torch.set_num_threads(threads)

    assert corrected > 0.95 * fresh, (corrected, fresh)
    assert uncorrected < 0.9 * corrected, (uncorrected, corrected)
