"""Makes segments and trajectories that pass for finished ones, and the totals of an actor."""

from collections.abc import Sequence

import numpy as np

from common.telemetry.process_totals import ActorTotals
from common.wire.records import NOT_AN_ACTION, Outcome, Purpose, Segment, Step, Trajectory


def make_totals(*, requests: int = 2, resent: int = 0) -> ActorTotals:
    """Of an actor that asked so often, for ten tokens each time."""
    return ActorTotals(
        launcher="forked",
        kernel_level="A-forked",
        kernels_started=1,
        requests=requests,
        request_retries=0,
        tokens_generated=10 * requests,
        resent=resent,
    )


def make_segment(
    lengths: Sequence[int],
    *,
    prompt: int = 4,
    observation: int = 3,
    version: int = 0,
    first_action: int = 0,
    vocabulary: int = 64,
    seed: int = 0,
) -> Segment:
    """A random segment: prompt, then actions of ``lengths`` tokens with observations between."""
    rng = np.random.default_rng(seed)
    action_index: list[int] = [NOT_AN_ACTION] * prompt
    for offset, length in enumerate(lengths):
        if offset:
            action_index += [NOT_AN_ACTION] * observation
        action_index += [first_action + offset] * length
    index = np.array(action_index, dtype=np.int32)
    sampled = index != NOT_AN_ACTION
    return Segment(
        token_ids=rng.integers(0, vocabulary, len(index)).astype(np.int32),
        action_index=index,
        behaviour_logprobs=np.where(sampled, -rng.random(len(index)), 0).astype(np.float32),
        versions=np.where(sampled, version, NOT_AN_ACTION).astype(np.int32),
    )


def make_trajectory(
    trajectory_id: str = "t0",
    *,
    lengths: Sequence[int] = (3, 2),
    reward: float = 1.0,
    version: int = 0,
    group_id: str = "g0",
    sample_index: int = 0,
    purpose: Purpose = Purpose.TRAIN,
    outcome: Outcome = Outcome.SUBMITTED,
    seed: int = 0,
    vocabulary: int = 64,
    task_id: str = "task",
    actor_id: str = "a0",
) -> Trajectory:
    """A finished trajectory of one segment whose last step carries ``reward``."""
    rewards = np.zeros(len(lengths), dtype=np.float32)
    if len(lengths):
        rewards[-1] = reward
    return Trajectory(
        trajectory_id=trajectory_id,
        task_id=task_id,
        group_id=group_id,
        sample_index=sample_index,
        purpose=purpose,
        actor_id=actor_id,
        outcome=outcome,
        segments=(make_segment(lengths, version=version, seed=seed, vocabulary=vocabulary),),
        step_rewards=rewards,
        steps=tuple(Step(action="a", code="1", observation="") for _ in lengths),
        answer="x",
        scores={"exact_match": reward},
    )
