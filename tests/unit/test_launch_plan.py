"""Which held-out questions are asked when."""

from pathlib import Path

from common.config import Config, Evaluation, Tasks
from launch.plan.evaluation import plan_after, plan_before

TASKS = Tasks(train="t", train_corpus="tc", heldout="h")


def test_without_heldout_tasks_nothing_is_asked() -> None:
    assert plan_before(Config()) == plan_after(Config()) == ()


def test_before_training_heldout_questions_are_asked_sampled_and_greedily() -> None:
    sampled, greedy = plan_before(Config(tasks=TASKS))

    assert (sampled.name, sampled.temperature, sampled.per_family) == ("heldout", 1.0, 400)
    assert (greedy.name, greedy.temperature, greedy.per_family) == ("greedy", 0.0, 200)
    assert sampled.corpus == "tc", "without a held-out corpus the training corpus is searched"


def test_after_training_the_control_runs_without_search() -> None:
    plan = {suite.name: suite for suite in plan_after(Config(tasks=TASKS))}

    assert list(plan) == ["heldout", "greedy", "control"]
    assert [name for name, suite in plan.items() if suite.search_disabled] == ["control"]


def test_a_generated_world_adds_wordings_and_unseen_names() -> None:
    plan = {suite.name: suite for suite in plan_after(Config(tasks=TASKS), Path("/w"))}

    assert plan["wordings"].tasks == "/w/heldout_wordings.jsonl"
    assert plan["unseen"].corpus == "/w/unseen_corpus.sqlite"


def test_a_size_of_zero_leaves_a_suite_out() -> None:
    none = Evaluation(per_family=0, greedy_per_family=0, control=0)

    assert plan_after(Config(tasks=TASKS, evaluation=none), Path("/w")) == ()
