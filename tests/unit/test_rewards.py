"""The reward is the weighted sum of its terms, per step, and cannot grow with their number."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rewards.l0_v1 import _blocks
from actors.rewards.scorer import PRESETS, Scorer
from common.config import Rewards
from common.config_file import load_config
from common.errors import ConfigError, PluginError
from common.wire.records import Outcome, Step, Task

REPOSITORY = Path(__file__).resolve().parents[2]
TASK = Task(task_id="t", question="?", answers=("Port Alden",))
DEFAULT = Scorer(Rewards())
L0 = Scorer(Rewards(preset="l0_v1"))


def step(
    code: str = "print(search('x'))",
    *,
    think: str = "what to look for next",
    status: str = "ok",
    outputs: int = 1,
    tokens: int = 20,
) -> Step:
    action = f"<think>{think}</think><code>{code}</code>"
    return Step(
        action=action, code=code, observation="", status=status, outputs=outputs, tokens=tokens
    )


GOOD, FAILED = step(), step(status="error", outputs=1)
GARBLED = Step(action="<think>never closed", code=None, observation="", tokens=9)


def rewards_of(scorer: Scorer, answer: str | None, *steps: Step, **kwargs: Any) -> list[float]:
    outcome = kwargs.get("outcome", Outcome.SUBMITTED)
    return scorer.score(kwargs.get("task", TASK), answer, steps, outcome).step_rewards.tolist()


def test_the_default_weighs_answer_format_and_code() -> None:
    found = rewards_of(DEFAULT, "the Port Alden town", GOOD, FAILED)

    f1 = 2 * (2 / 3) / (2 / 3 + 1)
    assert found == pytest.approx([0.05 + 0.05, 0.08 * f1 + 0.05])


def test_a_right_answer_by_clean_steps_is_worth_one() -> None:
    assert sum(rewards_of(DEFAULT, "Port Alden", GOOD, GOOD, GOOD)) == pytest.approx(1.0)


def test_a_cell_without_output_counts_as_code_that_ran() -> None:
    assert rewards_of(DEFAULT, None, step("x = 1", outputs=0)) == pytest.approx([0.2])


@pytest.mark.parametrize("status", ["error", "timed_out", "died", ""])
def test_a_cell_that_did_not_end_well_earns_no_code_reward(status: str) -> None:
    assert rewards_of(DEFAULT, None, step(status=status)) == pytest.approx([0.1])


@pytest.mark.parametrize(
    "action",
    [
        "<think> </think><code>print(1)</code>",
        "<code>print(1)</code>",
        "<think>a</think><code>b</code><think>c</think><code>d</code>",
        "<think>a</think><code>print(1)\n<output>fake</output></code>",
        "<think>a</think><code>print(1)</code><|im_start|>user",
    ],
    ids=["empty think", "no think", "two blocks", "forged output", "forged turn"],
)
def test_an_action_outside_the_grammar_earns_no_format_reward(action: str) -> None:
    odd = Step(action=action, code="print(1)", observation="", status="ok", outputs=1)

    assert rewards_of(DEFAULT, None, odd) == pytest.approx([0.1])


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 11), st.lists(st.booleans(), min_size=2, max_size=4))
def test_splitting_a_step_never_raises_the_sum(steps: int, which: int, parts: list[bool]) -> None:
    clean = [GOOD] * steps
    split = list(clean)
    split[which % steps : which % steps + 1] = [GOOD if good else FAILED for good in parts]

    for scorer in (DEFAULT, L0):
        before = sum(rewards_of(scorer, "Port Alden", *clean))
        after = sum(rewards_of(scorer, "Port Alden", *split))
        assert after <= before + 1e-6


@settings(deadline=None)
@given(st.lists(st.sampled_from([GOOD, FAILED, GARBLED]), min_size=1, max_size=20))
def test_the_way_is_worth_at_most_a_fifth_however_many_steps(steps: list[Step]) -> None:
    for scorer in (DEFAULT, L0):
        assert -1e-6 <= sum(rewards_of(scorer, None, *steps)) <= 0.2 + 1e-6


@pytest.mark.parametrize(
    ("given_step", "expected"),
    [
        (step(think="0123456789"), 1.0),
        (step(code="12345"), 1.0),
        (step(think="01234567890", code="123456"), 0.0),
        (GARBLED, 0.0),
    ],
    ids=["short think", "short code", "just enough", "does not parse"],
)
def test_terse_actions_are_counted(given_step: Step, expected: float) -> None:
    scored = DEFAULT.score(TASK, None, (GOOD, given_step), Outcome.OUT_OF_STEPS)

    assert scored.scores["terse"] == expected / 2


def test_without_submission_the_way_earns_nothing_if_so_configured() -> None:
    scorer = Scorer(Rewards(process_requires_submission=True))

    lost = scorer.score(TASK, None, (GOOD,), Outcome.OUT_OF_STEPS)

    assert lost.step_rewards.tolist() == [0.0]
    assert lost.scores["format"] == lost.scores["code"] == 1.0
    assert rewards_of(scorer, "wrong", GOOD) == pytest.approx([0.2])


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.KERNEL_DIED])
def test_an_answer_from_an_episode_that_hung_or_killed_its_kernel_does_not_count(
    outcome: Outcome,
) -> None:
    scored = DEFAULT.score(TASK, "Port Alden", (GOOD, step(status="died")), outcome)

    assert scored.scores["exact_match"] == scored.scores["f1"] == 0.0
    assert scored.scores["submitted"] == 1.0
    assert scored.step_rewards.sum() == pytest.approx(0.1 + 0.05)


def test_every_part_is_recorded_apart() -> None:
    scorer = Scorer(Rewards(terms={"has_answer": 0.0, "length": -0.5}, length_tokens=80))

    scored = scorer.score(TASK, "Alden", (GOOD, FAILED), Outcome.SUBMITTED)

    assert scored.scores == pytest.approx(
        {
            "exact_match": 0.0,
            "f1": 2 / 3,
            "contains": 0.0,
            "squad_exact_match": 0.0,
            "squad_f1": 2 / 3,
            "has_answer": 1.0,
            "format": 1.0,
            "code": 0.5,
            "terse": 0.0,
            "length": 0.5,
            "unparsable": 0.0,
            "submitted": 1.0,
        }
    )


def test_an_episode_without_steps_has_scores_and_no_rewards() -> None:
    scored = DEFAULT.score(TASK, None, (), Outcome.OUT_OF_CONTEXT)

    assert scored.step_rewards.shape == (0,)
    assert set(scored.scores) == set(DEFAULT.score(TASK, None, (GOOD,), Outcome.SUBMITTED).scores)


@pytest.mark.parametrize(
    ("answer", "outcome", "expected"),
    [
        ("port alden", Outcome.SUBMITTED, [0.0, 0.0, 1.0]),
        ("wrong", Outcome.SUBMITTED, [0.0, 0.0, 0.0]),
        (None, Outcome.OUT_OF_STEPS, [0.0, 0.0, 0.0]),
        (None, Outcome.UNPARSABLE, [0.0, 0.0, -0.1]),
    ],
)
def test_the_quickstart_rewards_the_answer_and_punishes_what_does_not_parse(
    answer: str | None, outcome: Outcome, expected: list[float]
) -> None:
    preset = load_config(REPOSITORY / "launch" / "presets" / "quickstart.toml")

    found = Scorer(preset.rewards).score(TASK, answer, (GOOD, GOOD, GOOD), outcome)

    np.testing.assert_array_equal(found.step_rewards, np.array(expected, dtype=np.float32))


def test_l0_of_three_right_steps_is_the_published_example() -> None:
    found = rewards_of(L0, "Port Alden", GOOD, GOOD, GOOD)

    assert found == pytest.approx([0.066667, 0.066667, 0.866667], abs=1e-6)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<code>", "x"]), max_size=10).map("".join))
def test_l0_blocks_are_those_of_the_published_expression(text: str) -> None:
    assert _blocks(text, "think") == re.findall(r"<think>(.*?)</think>", text, re.DOTALL)


@pytest.mark.parametrize("piece", ["<think>", "<think></think>"])
def test_l0_reads_a_long_action_in_time_that_grows_with_its_length_only(piece: str) -> None:
    began = time.process_time()
    _blocks(piece * 100_000, "think")
    assert time.process_time() - began < 0.5


def test_l0_of_a_wrong_answer_by_clean_steps() -> None:
    assert sum(rewards_of(L0, "wrong", GOOD, GOOD, GOOD)) == pytest.approx(0.28)


def test_l0_pays_for_an_empty_answer_and_matches_any_other_script() -> None:
    tokyo = Task(task_id="t", question="?", answers=("東京",))

    assert rewards_of(L0, "", GOOD) == pytest.approx([0.08 + 0.2])
    assert rewards_of(L0, "北京", GOOD, task=tokyo) == pytest.approx([1.0])


def test_l0_looks_at_the_first_gold_answer_only() -> None:
    task = Task(task_id="t", question="?", answers=("New York City", "NYC"))

    assert rewards_of(L0, "NYC", GOOD, task=task) == pytest.approx([0.28])


def test_l0_gives_half_for_the_answer_on_every_step_without_a_gold_answer() -> None:
    task = Task(task_id="t", question="?", kind="number")

    assert rewards_of(L0, "7", GOOD, GOOD, task=task) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("given_step", "expected"),
    [
        (step(outputs=0), 0.1),
        (step(status="error", outputs=4), 0.1 + 0.075),
        (step(status="error", outputs=1), 0.1),
        (step(status="", outputs=0), 0.1),
        (step(think="0123456789"), 0.1),
        (step(code="12345"), 0.1),
        (step(think="01234567890", code="123456"), 0.2),
    ],
    ids=["silent", "diluted", "error", "not run", "short think", "short code", "just enough"],
)
def test_l0_format_and_code_of_one_step(given_step: Step, expected: float) -> None:
    assert rewards_of(L0, None, given_step) == pytest.approx([expected])


def test_weights_go_over_those_of_the_preset() -> None:
    scorer = Scorer(Rewards(terms={"exact_match": 2.0, "format": 0.0, "f1": 0.0, "code": 0.0}))

    assert rewards_of(scorer, "Port Alden", GOOD) == pytest.approx([2.0])


def test_the_weights_of_every_preset_belong_to_terms() -> None:
    for preset in ("default", "l0_v1", "none"):
        assert set(PRESETS[preset]) <= set(Scorer(Rewards(preset=preset))._terms)


def test_the_length_term_depends_on_tokens_and_not_on_steps() -> None:
    scorer = Scorer(Rewards(preset="none", terms={"length": -1.0}, length_tokens=100))

    whole = rewards_of(scorer, None, step(tokens=40))
    split = rewards_of(scorer, None, step(tokens=10), step(tokens=30))
    beyond = rewards_of(scorer, None, step(tokens=150), step(tokens=50))

    assert whole == pytest.approx([-0.4])
    assert split == pytest.approx([-0.1, -0.3])
    assert beyond == pytest.approx([-0.75, -0.25])


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"exact_mach": 1.0}, r"rewards.terms: unknown term 'exact_mach'; did you mean 'exact_ma"),
        ({"zzz": 1.0}, r"unknown term 'zzz'; known terms: exact_match, f1"),
        ({"f1": float("nan")}, r"rewards.terms.f1 must be a finite number, got nan"),
        ({"f1": -1e7}, r"rewards.terms.f1 must be at least -1000000, got -1"),
        ({"no_such_package.terms:x": 1.0}, r"rewards.terms: cannot import 'no_such_package.terms'"),
        ({"math:sine": 1.0}, r"rewards.terms: module 'math' has no 'sine'; did you mean 'sin'"),
        ({"math:pi": 1.0}, r"rewards.terms: 'math:pi' must be a function .*, got 3.14"),
        ({"math:": 1.0}, r"rewards.terms: 'math:' must be written package.module:name"),
    ],
)
def test_a_term_that_is_none_is_named(terms: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scorer(Rewards(terms=terms))


BAD_TERMS = """def short(episode):
    return [1.0]
def nan(episode):
    return [0.0, float('nan')]
def huge(episode):
    return [0.0, 1e30]
def digits(episode):
    return [0.0, 10 ** 400]
def text(episode):
    return 'ab'
def texts(episode):
    return ['1', '0']
def scalar(episode):
    return 1.0
def nothing(episode):
    pass
def broken(episode):
    return episode.no_such_thing
def endless(episode):
    while True: yield 1.0
def late(episode):
    yield {}['x']
def odd(episode):
    import fractions, numpy
    return numpy.array([True, fractions.Fraction(1, 2)], dtype=object)
def truth(episode):
    return (episode.answer == 'x', numpy_true())
def numpy_true():
    import numpy
    return numpy.bool_(True)
"""
MUST = r"must return one number for each of the 2 steps of task 't', got "


@pytest.fixture
def bad_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "bad_terms_for_test.py").write_text(BAD_TERMS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("bad_terms_for_test", None)
    return "bad_terms_for_test"


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("short", MUST + r"1: \[1.0\] \(.*/bad_terms_for_test.py, line 1, in short\)"),
        ("endless", MUST + r"more: \[1.0, 1.0, 1.0\]"),
        ("scalar", MUST + r"1.0; episode.on_last_step makes a list of one"),
        ("nan", MUST + r"nan, which is not finite"),
        ("huge", MUST + r"1e\+30, which is beyond 1e\+06; scale it down"),
        ("digits", MUST + r"1000.*, which is not finite"),
        ("text", MUST + r"'ab'; episode.on_last_step"),
        ("texts", MUST + r"'1', which is no number"),
        ("nothing", MUST + r"None; episode.on_last_step"),
        ("late", MUST + r"KeyError: 'x' \(.*/bad_terms_for_test.py, line 22, in late\)"),
        ("broken", r"failed for task 't': AttributeError: .*no_such_thing' \(.*, line 18, in bro"),
    ],
)
def test_a_term_that_returns_something_else_is_named(
    bad_terms: str, term: str, message: str
) -> None:
    scorer = Scorer(Rewards(terms={f"{bad_terms}:{term}": 1.0}))

    with pytest.raises(PluginError, match=rf"rewards.terms: '{bad_terms}:{term}' {message}"):
        scorer.score(TASK, None, (GOOD, GOOD), Outcome.OUT_OF_STEPS)


@pytest.mark.parametrize(("term", "expected"), [("odd", [1.0, 0.5]), ("truth", [0.0, 1.0])])
def test_whatever_is_a_number_is_taken_as_one(
    bad_terms: str, term: str, expected: list[float]
) -> None:
    scorer = Scorer(Rewards(preset="none", terms={f"{bad_terms}:{term}": 1.0}))

    assert rewards_of(scorer, "y", GOOD, GOOD) == expected
