"""Answers are compared as SQuAD and HotpotQA do, without their holes for other scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rewards.answers import contains, exact_match, f1, normalise
from actors.rewards.terms import score
from common.config import Rewards
from common.messages import Task

TASK = Task(task_id="t", question="?", answers=("Port Alden",))


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("The Beatles", "Beatles", 1.0),
        ("port alden.", "Port Alden", 1.0),
        ("Zürich", "Zurich", 1.0),
        ("Beyoncé", "beyonce", 1.0),
        ("東京", "東京", 1.0),
        ("東京", "京都", 0.0),
        ("", "!!!", 0.0),
        ("!!!", "???", 0.0),
        ("-5", "5", 0.0),
        ("3.5", "35", 0.0),
        ("1,958", "1958", 1.0),
        ("50%", "50", 0.0),
        ("U.S. dollar", "us dollar", 0.0),
        ("2019-20", "2019 20", 1.0),
        ("か", "が", 0.0),
    ],
)
def test_exact_match_of(answer: str, gold: str, expected: float) -> None:
    assert exact_match(answer, [gold]) == expected


def test_any_of_several_gold_answers_counts() -> None:
    assert exact_match("NYC", ["New York City", "NYC"]) == 1.0


def test_contains_wants_whole_words() -> None:
    assert contains("She was born in Port Alden in 1931.", ["Port Alden"]) == 1.0
    assert contains("born in 19312", ["1931"]) == 0.0


def test_f1_is_the_harmonic_mean_over_tokens() -> None:
    assert f1("the mayor of Port Alden", ["Port Alden"]) == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_f1_of_yes_and_no_is_all_or_nothing() -> None:
    assert f1("yes it is", ["yes"]) == 0.0
    assert f1("yes", ["yes"]) == 1.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_answers_that_normalise_to_nothing_match_nothing(answer: str, gold: str) -> None:
    if not normalise(answer) or not normalise(gold):
        assert exact_match(answer, [gold]) == f1(answer, [gold]) == contains(answer, [gold]) == 0.0


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(min_size=1, max_size=60))
def test_every_score_is_a_share(answer: str) -> None:
    assert 0.0 <= f1(answer, ["Port Alden"]) <= 1.0


def test_reward_falls_on_the_last_step() -> None:
    scored = score(TASK, "port alden", steps=3, unparsable=False, weights=Rewards())

    assert scored.step_rewards.tolist() == [0.0, 0.0, 1.0]
    assert scored.scores["exact_match"] == 1.0


def test_unparsable_action_is_penalised_once() -> None:
    scored = score(TASK, None, steps=2, unparsable=True, weights=Rewards())

    assert scored.step_rewards.tolist() == pytest.approx([0.0, -0.1])


def test_episode_without_actions_has_no_rewards() -> None:
    assert score(TASK, None, steps=0, unparsable=False, weights=Rewards()).step_rewards.size == 0
