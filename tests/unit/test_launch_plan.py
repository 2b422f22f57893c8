"""Which held-out questions are asked when."""

from pathlib import Path

import pytest

from actors.tools.started import run_corpora
from common.config import Config, Evaluation, EvaluationSuite, Tasks
from launch.plan.evaluation import suites_of, with_world_suites

WORLD = Path("/w")
OWN = EvaluationSuite(name="own", tasks="o", when=("after",))


def names(evaluation: Evaluation, when: str) -> list[str]:
    return [suite.name for suite in suites_of(Config(evaluation=evaluation), when)]  # type: ignore[arg-type]


def test_without_suites_nothing_is_asked() -> None:
    assert suites_of(Config(), "before") == suites_of(Config(), "after") == ()


def test_a_suite_is_asked_when_it_says() -> None:
    suites = (OWN, EvaluationSuite(name="both", tasks="b"))

    assert names(Evaluation(suites=suites), "before") == ["both"]
    assert names(Evaluation(suites=suites), "after") == ["own", "both"]


def test_a_suite_without_corpus_searches_the_one_of_training() -> None:
    evaluation = Evaluation(suites=(OWN, EvaluationSuite(name="b", tasks="b", corpus="bc")))
    config = Config(tasks=Tasks(train_corpus="tc"), evaluation=evaluation)

    assert [suite.corpus for suite in suites_of(config, "after")] == ["tc", "bc"]


def test_the_world_asks_before_training_sampled_and_greedily() -> None:
    evaluation = with_world_suites(Evaluation(), WORLD)
    sampled, greedy = suites_of(Config(evaluation=evaluation), "before")

    assert (sampled.name, sampled.temperature, sampled.per_family) == ("heldout", 1.0, 400)
    assert (greedy.name, greedy.temperature, greedy.per_family) == ("greedy", 0.0, 200)
    assert sampled.corpus == "/w/heldout_corpus.sqlite"


def test_the_world_adds_a_control_wordings_and_unseen_names_after_training() -> None:
    evaluation = with_world_suites(Evaluation(suites=(OWN,)), WORLD)
    asked = {suite.name: suite for suite in suites_of(Config(evaluation=evaluation), "after")}

    assert list(asked) == ["heldout", "greedy", "control", "wordings", "unseen", "own"]
    assert [name for name, suite in asked.items() if suite.search_disabled] == ["control"]
    assert asked["wordings"].tasks == "/w/heldout_wordings.jsonl"
    assert asked["unseen"].corpus == "/w/unseen_corpus.sqlite"


@pytest.mark.parametrize(
    ("counts", "before", "after"),
    [
        ({"per_family": 0, "greedy_per_family": 0, "control": 0}, [], []),
        ({"greedy_per_family": 0}, ["heldout"], ["heldout", "control"]),
        ({"control": 0, "per_family": 0}, ["greedy"], ["greedy", "wordings", "unseen"]),
    ],
)
def test_a_count_of_zero_leaves_a_suite_out(
    counts: dict[str, int], before: list[str], after: list[str]
) -> None:
    evaluation = with_world_suites(Evaluation(**counts), WORLD)

    assert names(evaluation, "before") == before
    assert names(evaluation, "after") == after


def test_questions_are_asked_during_training_unless_that_is_switched_off() -> None:
    always = with_world_suites(Evaluation(per_family=0), WORLD)
    never = with_world_suites(Evaluation(during_every=0), WORLD)

    assert always.during is not None
    assert always.during.name == "heldout"
    assert never.during is None
    corpora = run_corpora(Config(tasks=Tasks(train_corpus="tc"), evaluation=always))
    assert corpora == {"train": "tc", "heldout": "/w/heldout_corpus.sqlite"}


def test_a_suite_of_ones_own_is_asked_during_training_instead_of_the_worlds() -> None:
    own = EvaluationSuite(name="own", tasks="o", when=("during",))

    evaluation = with_world_suites(Evaluation(suites=(own,)), WORLD)

    assert evaluation.during == own
    assert names(evaluation, "before") == ["heldout", "greedy"]


def test_a_resolved_configuration_can_be_resolved_again() -> None:
    once = with_world_suites(Evaluation(suites=(OWN,)), WORLD)

    assert with_world_suites(once, Path("/w")) == once
