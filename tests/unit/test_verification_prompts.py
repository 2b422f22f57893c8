"""Prompts for the parity check leave room for its answer, whatever a batch holds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.chat import prompt_text
from common.wire.records import NOT_AN_ACTION, Outcome, Purpose, Segment, Step, Trajectory
from learner.weights.parity import PROBE_TOKENS
from learner.weights.verifier import NUM_PROBES, question_prompts, random_prompts, real_prompts


def trajectory(*segments: tuple[int, int]) -> Trajectory:
    """Of each segment the tokens before the first action, and the action's tokens."""
    return Trajectory(
        trajectory_id="t", group_id="g", sample_index=0, task_id="q", actor_id="a",
        purpose=Purpose.TRAIN, outcome=Outcome.OUT_OF_CONTEXT,
        segments=tuple(segment(before, length) for before, length in segments),
        steps=(Step(action="", code=None, observation=""),),
        step_rewards=np.zeros(1, np.float32), answer=None, scores={},
    )  # fmt: skip


def segment(before: int, length: int) -> Segment:
    index = np.array([NOT_AN_ACTION] * before + [0] * length, dtype=np.int32)
    return Segment(
        token_ids=np.arange(len(index), dtype=np.int32),
        action_index=index,
        behaviour_logprobs=np.zeros(len(index), dtype=np.float32),
        versions=np.where(index == 0, 0, NOT_AN_ACTION).astype(np.int32),
    )


def test_a_task_that_does_not_fit_into_the_context_is_no_probe() -> None:
    batch = [trajectory((600, 0)), trajectory((20, 4), (700, 0))]

    assert real_prompts(batch, max_context=512) == [list(range(20))] * NUM_PROBES


def test_a_batch_without_any_action_has_no_prompts() -> None:
    assert real_prompts([trajectory((600, 0))], max_context=512) == []


def test_before_any_batch_the_prompts_are_questions_from_all_over() -> None:
    questions = [f"What is {number}?" for number in range(40)]

    found = question_prompts(questions, lambda text: list(text.encode()), max_context=512)

    assert [bytes(prompt).decode() for prompt in found] == [
        prompt_text(f"What is {number}?") for number in (0, 10, 20, 30)
    ]


def test_a_long_question_keeps_its_end_and_leaves_room_for_the_answer() -> None:
    (found, *others) = question_prompts(
        ["x" * 900], lambda text: list(text.encode()), max_context=128
    )

    assert others == [found] * (NUM_PROBES - 1)
    assert len(found) == 128 - PROBE_TOKENS
    assert bytes(found).decode().endswith("assistant\n")


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 700), st.integers(0, 5)).filter(lambda lengths: any(lengths)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(SEGMENTS, max_size=6), st.integers(20, 640))
def test_every_prompt_leaves_room_for_what_is_sampled(
    batch: list[list[tuple[int, int]]], max_context: int
) -> None:
    own = real_prompts([trajectory(*segments) for segments in batch], max_context=max_context)
    drawn = random_prompts(50, seed=0, max_context=max_context)

    assert len(own) in (0, NUM_PROBES)
    assert len(drawn) == NUM_PROBES
    assert all(0 < len(prompt) <= max_context - PROBE_TOKENS for prompt in own + drawn)
