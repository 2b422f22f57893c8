"""Which held-out questions are asked when: the suites of the embedded world, and a run's plan."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from common.config import Config, Evaluation, EvaluationSuite
from common.config.evaluation import When
from common.evaluation import Suite

HELDOUT = "heldout"
GREEDY = "greedy"
CONTROL = "control"
WORDINGS = "wordings"
UNSEEN = "unseen"
OF_THE_WORLD = frozenset({HELDOUT, GREEDY, CONTROL, WORDINGS, UNSEEN})
"""Names of the suites that the embedded world has."""


def suites_of(config: Config, when: When) -> tuple[Suite, ...]:
    """What is asked of the policy ``before`` or ``after`` training, in this order."""
    asked = (suite for suite in config.evaluation.suites if when in suite.when)
    return tuple(
        Suite(
            name=suite.name,
            tasks=suite.tasks,
            corpus=suite.corpus or config.tasks.train_corpus,
            temperature=suite.temperature,
            per_family=suite.per_family,
            search_disabled=suite.search_disabled,
        )
        for suite in asked
    )


def with_world_suites(evaluation: Evaluation, world: Path) -> Evaluation:
    """Suites for the counts of the embedded world, in front of the run's own.

    Those with the name of one of the world's are replaced: a resolved configuration may be
    resolved again. While it trains, a run asks its own suite if one says so.
    """
    own = tuple(suite for suite in evaluation.suites if suite.name not in OF_THE_WORLD)
    during = bool(evaluation.during_every) and not any("during" in suite.when for suite in own)
    suites = _world_suites(evaluation, world, during=during)
    return dataclasses.replace(evaluation, suites=(*suites, *own))


def heldout_suite(world: Path) -> EvaluationSuite:
    """Held-out questions about a world that training does not see."""
    return EvaluationSuite(
        name=HELDOUT,
        tasks=str(world / "heldout.jsonl"),
        corpus=str(world / "heldout_corpus.sqlite"),
    )


def extra_suites(world: Path) -> tuple[EvaluationSuite, EvaluationSuite]:
    """Held-out question wordings, and names made of words never seen in training."""
    wordings = dataclasses.replace(
        heldout_suite(world), name=WORDINGS, tasks=str(world / "heldout_wordings.jsonl")
    )
    unseen = EvaluationSuite(
        name=UNSEEN,
        tasks=str(world / "unseen.jsonl"),
        corpus=str(world / "unseen_corpus.sqlite"),
    )
    return wordings, unseen


def _world_suites(
    evaluation: Evaluation, world: Path, *, during: bool
) -> Iterator[EvaluationSuite]:
    heldout, greedy = evaluation.per_family, evaluation.greedy_per_family
    asked: list[When] = ["before", "after"] if heldout else []
    if during:
        asked.append("during")
    base = heldout_suite(world)
    if asked:
        yield dataclasses.replace(base, when=tuple(asked), per_family=heldout)
    if greedy:
        yield dataclasses.replace(base, name=GREEDY, per_family=greedy, temperature=0.0)
    if evaluation.control:
        yield dataclasses.replace(
            base,
            name=CONTROL,
            when=("after",),
            per_family=evaluation.control,
            search_disabled=True,
        )
    if greedy:
        for suite in extra_suites(world):
            yield dataclasses.replace(suite, when=("after",), per_family=greedy)
