"""The door: whether a trajectory is what was asked for, and something the model can be trained on.

The codec has checked types and shapes. What is checked here needs to know the lease that the
trajectory claims to answer, the model, and the newest weights.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from common.wire.records import NOT_AN_ACTION, Outcome, Segment, Trajectory
from learner.coordination.leases import Lease

MAX_REWARD = 1e6
"""Largest absolute reward of a step; beyond it is no reward but an accident."""

MAX_COUNT = 2**31 - 1
"""Most tokens or cells of one episode."""

_ROUNDING = 1e-4
"""How far above 0 an engine's rounding may put the log-probability of a certain token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLimits:
    """What the model takes: token ids below ``vocabulary``, segments of ``max_context`` tokens."""

    vocabulary: int
    max_context: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong: ``kind`` for counting, ``text`` for people."""

    kind: str
    text: str


def fault_in(
    trajectory: Trajectory,
    lease: Lease,
    *,
    actor_id: str,
    limits: ModelLimits | None,
    newest_version: int,
) -> Fault | None:
    """The first thing wrong with a trajectory; None where it can be used.

    Args:
        trajectory: as it came.
        lease: which it claims to answer.
        actor_id: of the session that sent it.
        limits: of the model; None leaves token ids and lengths unchecked.
        newest_version: the highest weight version that can have sampled anything.
    """
    fault = _fault_of_lease(trajectory, lease, actor_id) or _fault_of_numbers(trajectory)
    if fault is not None or trajectory.outcome is Outcome.INFRASTRUCTURE:
        return fault
    if "exact_match" not in trajectory.scores:
        return Fault(kind="score", text="it has no score 'exact_match', and did not fail")
    return _fault_of_segments(trajectory, limits, newest_version)


def _fault_of_lease(trajectory: Trajectory, lease: Lease, actor_id: str) -> Fault | None:
    expected = {
        "group_id": lease.group_id or trajectory.group_id,
        "sample_index": lease.sample_index,
        "task_id": lease.task.task_id,
        "purpose": lease.purpose,
        "actor_id": actor_id,
    }
    for name, value in expected.items():
        got = getattr(trajectory, name)
        if got != value:
            return Fault(kind="lease", text=f"{name} must be {value!r}, got {got!r}"[:200])
    return None


def _fault_of_numbers(trajectory: Trajectory) -> Fault | None:
    for name in ("tokens_generated", "cells_executed"):
        count = getattr(trajectory, name)
        if not 0 <= count <= MAX_COUNT:
            return Fault(kind="count", text=f"{name} must be from 0 to {MAX_COUNT}, got {count}")
    rewards = trajectory.step_rewards
    if not bool((np.abs(rewards) <= MAX_REWARD).all()):  # NaN compares false
        return Fault(
            kind="reward",
            text=f"rewards must be numbers within {MAX_REWARD:g}, got {rewards.tolist()[:8]}",
        )
    for name, score in trajectory.scores.items():
        if not np.isfinite(score):
            return Fault(kind="score", text=f"score {name[:80]!r} must be a number, got {score}")
    return None


def _fault_of_segments(
    trajectory: Trajectory, limits: ModelLimits | None, newest_version: int
) -> Fault | None:
    if not trajectory.segments:
        return Fault(kind="length", text="it has no segment, and did not fail")
    first_action = 0
    for place, segment in enumerate(trajectory.segments):
        fault = (
            _fault_of_tokens(segment, limits)
            or _fault_of_actions(segment, first_action)
            or _fault_of_samples(segment, newest_version)
        )
        if fault is not None:
            return Fault(kind=fault.kind, text=f"segment {place}: {fault.text}")
        first_action = max(first_action, int(segment.action_index.max()) + 1)
    return None


def _fault_of_tokens(segment: Segment, limits: ModelLimits | None) -> Fault | None:
    length = len(segment.token_ids)
    most = length if limits is None else limits.max_context
    if not 1 <= length <= most:
        return Fault(kind="length", text=f"must have from 1 to {most} tokens, has {length}")
    low, high = int(segment.token_ids.min()), int(segment.token_ids.max())
    end = high + 1 if limits is None else limits.vocabulary
    if low < 0 or high >= end:
        text = f"token ids must be from 0 to {end - 1}, go from {low} to {high}"
        return Fault(kind="vocabulary", text=text)
    return None


def _fault_of_actions(segment: Segment, first_action: int) -> Fault | None:
    index = segment.action_index
    own = index[index != NOT_AN_ACTION]
    if index[0] != NOT_AN_ACTION:
        return Fault(kind="action", text="its first token is sampled, but nothing precedes it")
    if len(own) and (int(own[0]) < first_action or np.count_nonzero(own[1:] < own[:-1])):
        text = f"actions must come in order, from number {first_action} on"
        return Fault(kind="action", text=text)
    return None


def _fault_of_samples(segment: Segment, newest_version: int) -> Fault | None:
    logprobs = segment.behaviour_logprobs  # 0 where nothing was sampled
    if not (float(logprobs.min()) > -inf and float(logprobs.max()) <= _ROUNDING):  # NaN is neither
        text = "log-probabilities of sampled tokens must be finite and at most 0"
        return Fault(kind="logprob", text=text)
    sampled = segment.action_index != NOT_AN_ACTION
    newest = int((segment.versions * sampled).max())
    if newest > newest_version:
        text = f"weight version {newest} has not been published yet, the newest is {newest_version}"
        return Fault(kind="version", text=text)
    return None
