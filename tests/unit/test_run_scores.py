"""Scores of an evaluation count for the weights that were to be evaluated."""

import pytest

from common.errors import RunError
from common.evaluation import FamilyScore, Suite, SuiteScore
from launch.run.scores import check_weights


def score(version: int, *, n: int = 10) -> SuiteScore:
    family = FamilyScore(n=n, exact_match=1, contains=1, f1=1, submitted=1, mean_steps=2)
    suite = Suite(name="heldout", tasks="t", corpus="c")
    return SuiteScore(suite=suite, weight_version=version, seconds=1, families={"all": family})


def test_scores_of_a_server_that_began_anew_are_refused_with_what_to_do() -> None:
    with pytest.raises(RunError, match=r"'heldout' asked weights of version 0 in place of 40.*go"):
        check_weights([score(40), score(0)], 40, then="go on")


def test_scores_of_the_right_weights_and_of_nobody_pass() -> None:
    check_weights([score(40), score(0, n=0)], 40, then="")
