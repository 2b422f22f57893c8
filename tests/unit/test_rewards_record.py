"""The means of a batch's scores go into the record of its step."""

import dataclasses

import pytest

from common.testing import make_trajectory
from learner.record import mean_scores


def test_a_score_is_averaged_over_the_trajectories_that_have_it() -> None:
    parts = [{"exact_match": 1.0, "wrong_names": 2.0}, {"exact_match": 0.0}, {"exact_match": 0.5}]
    batch = [dataclasses.replace(make_trajectory(), scores=scores) for scores in parts]

    assert mean_scores(batch) == pytest.approx({"exact_match": 0.5, "wrong_names": 2.0})
