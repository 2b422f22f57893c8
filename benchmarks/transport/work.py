"""What every way of delivery carries: one trajectory, made once, under the ids of each lease."""

from dataclasses import dataclass, replace

import numpy as np

from common.wire.codec import Buffer, encode
from common.wire.records import (
    NOT_AN_ACTION,
    Outcome,
    Purpose,
    Segment,
    Step,
    TaskLease,
    Trajectory,
)

VOCABULARY = 1 << 15
STEPS = 8
TASK_ID = "t"
_TEXT_SHARE = 0.3
"""Of the bytes: the text of the steps. The rest is 16 bytes for each token."""
_SAMPLED_SHARE = 1 / 3
"""Of the tokens: actions. The rest is what the policy was shown."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One round of one way.

    Attributes:
        per_s: trajectories that arrived in a second.
        cpu_ms: processor time of the receiving process for each, all of its threads, milliseconds.
        delivery_ms: from the sender's hands to where they are safe, each, milliseconds; only of
            a way that was asked for it.
        lost: were acknowledged to a sender and are not on the disk, or were handed out and came to
            nothing.
        duplicated: are on the disk, or in a batch, more than once.
    """

    per_s: float
    cpu_ms: float
    delivery_ms: tuple[float, ...] = ()
    lost: int = 0
    duplicated: int = 0


def made_trajectory(num_bytes: int) -> Trajectory:
    """An episode of eight steps that takes about so many bytes on the wire."""
    rng = np.random.default_rng(0)
    text = int(num_bytes * _TEXT_SHARE)
    turn = (num_bytes - text) // 16 // (STEPS + 1)
    shown, sampled = turn - int(turn * _SAMPLED_SHARE), int(turn * _SAMPLED_SHARE)
    index = [NOT_AN_ACTION] * turn
    for step in range(STEPS):
        index += [step] * sampled + [NOT_AN_ACTION] * shown
    return Trajectory(
        trajectory_id="g000000-0-1",
        task_id=TASK_ID,
        group_id="g000000",
        sample_index=0,
        purpose=Purpose.TRAIN,
        actor_id="a0",
        outcome=Outcome.SUBMITTED,
        segments=(_segment(np.array(index, np.int32), rng),),
        step_rewards=rng.random(STEPS).astype(np.float32),
        steps=tuple(_step(text // STEPS, rng) for _ in range(STEPS)),
        answer="an answer",
        scores={"exact_match": 1.0, "f1": 1.0},
        tokens_generated=STEPS * sampled,
        cells_executed=STEPS,
        question="What is asked?",
    )


def answered(lease: TaskLease, made: Trajectory, actor_id: str) -> Trajectory:
    """``made`` as what became of a lease."""
    return replace(
        made,
        trajectory_id=lease.lease_id,
        group_id=lease.group_id,
        sample_index=lease.sample_index,
        task_id=lease.task.task_id,
        purpose=lease.purpose,
        actor_id=actor_id,
    )


def frames_of(num_bytes: int) -> list[Buffer]:
    """The frames of such a trajectory."""
    return encode(made_trajectory(num_bytes))


def _segment(index: np.ndarray, rng: np.random.Generator) -> Segment:
    is_sampled = index != NOT_AN_ACTION
    return Segment(
        token_ids=rng.integers(0, VOCABULARY, len(index)).astype(np.int32),
        action_index=index,
        behaviour_logprobs=np.where(is_sampled, -rng.random(len(index)), 0).astype(np.float32),
        versions=np.where(is_sampled, 0, NOT_AN_ACTION).astype(np.int32),
    )


def _step(characters: int, rng: np.random.Generator) -> Step:
    letters = rng.integers(ord("a"), ord("z") + 1, characters).astype(np.uint8)
    text = bytes(letters).decode()
    third = characters // 3
    return Step(
        action=text[:third],
        code=text[third : 2 * third],
        observation=text[2 * third :],
        tool_calls=("search",),
        status="ok",
        outputs=1,
        seconds=0.1,
        tokens=third // 4,
    )
