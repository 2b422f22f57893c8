"""What the record of a step says of its batch."""

import dataclasses

import pytest

from common.wire.records import Outcome, Step, Trajectory
from learner.record import mean_scores, parsed_share
from tests.makers import make_trajectory


def test_a_score_is_averaged_over_the_trajectories_that_have_it() -> None:
    parts = [{"exact_match": 1.0, "wrong_names": 2.0}, {"exact_match": 0.0}, {"exact_match": 0.5}]
    batch = [dataclasses.replace(make_trajectory(), scores=scores) for scores in parts]

    assert mean_scores(batch) == pytest.approx({"exact_match": 0.5, "wrong_names": 2.0})


def with_cells(outcome: Outcome, *codes: str | None) -> Trajectory:
    steps = tuple(Step(action="a", code=code, observation="") for code in codes)
    return dataclasses.replace(
        make_trajectory(lengths=(1,) * len(codes)), steps=steps, outcome=outcome
    )


@pytest.mark.parametrize(
    ("outcome", "codes", "share"),
    [
        (Outcome.SUBMITTED, ("1", None, "2", "submit_final_answer(3)"), 0.75),
        (Outcome.SUBMITTED, (None,), 1.0),
        (Outcome.UNPARSABLE, (None,), 0.0),
    ],
    ids=["after a reminder", "a direct answer", "no answer"],
)
def test_what_did_not_parse_counts_whatever_came_of_it(
    outcome: Outcome, codes: tuple[str | None, ...], share: float
) -> None:
    assert parsed_share([with_cells(outcome, *codes)]) == share
