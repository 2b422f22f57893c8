"""Whether the scores of an evaluation say what they are taken for."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import RunError
from common.evaluation import SuiteScore


def check_scores(scores: Mapping[str, SuiteScore], folder: Path) -> None:
    """Refuse an evaluation that says nothing.

    Raises:
        RunError: every episode of a suite was lost to infrastructure.
    """
    for name, score in scores.items():
        lost = sum(family.dropped for family in score.families.values())
        if lost and not any(family.n for family in score.families.values()):
            raise RunError(
                f"all {lost} episodes of the evaluation '{name}' failed; "
                f"{folder / name}.jsonl says why ('failure')"
            )


def check_weights(scores: Iterable[SuiteScore], version: int, *, then: str) -> None:
    """Refuse an evaluation of other weights than those of ``version``.

    A policy server that was started again as the learner ended has those that the run began with.

    Args:
        scores: of the suites that were asked.
        version: what was to be evaluated.
        then: what a person can do.

    Raises:
        RunError: other weights answered.
    """
    for score in scores:
        is_answered = any(family.n for family in score.families.values())
        if is_answered and score.weight_version != version:
            raise RunError(
                f"the evaluation '{score.suite.name}' asked weights of version "
                f"{score.weight_version} in place of {version}: the policy server was started "
                f"again without them; {then}"
            )
