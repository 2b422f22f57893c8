"""From trajectories to segments with advantages: everything about a batch that needs no model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.config import Objective
from common.wire.records import NOT_AN_ACTION, Float32, Int32, Outcome, Trajectory
from learner.advantages import advantages_of
from learner.packs.packing import PackableSegment, segment_of_actions


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSummary:
    """Counts and means over the trajectories of a batch.

    Attributes:
        trajectories: number of trajectories.
        groups: number of groups.
        groups_without_signal: groups in which every advantage is 0.
        reward_mean: mean undiscounted sum of rewards of a trajectory.
        actions: sampled actions, each with at least one token.
        actions_without_signal: of these, those with advantage 0.
        actions_truncated: actions that ended at the limit of their length.
        action_tokens: tokens of all actions.
        segments_dropped: segments not packed, since all their actions have advantage 0.
        staleness: number of actions by staleness in versions, over all actions.
    """

    trajectories: int
    groups: int
    groups_without_signal: int
    reward_mean: float
    actions: int
    actions_without_signal: int
    actions_truncated: int
    action_tokens: int
    segments_dropped: int
    staleness: dict[int, int]

    @property
    def staleness_mean(self) -> float:
        """Mean staleness of an action, versions; 0 without actions."""
        return sum(age * count for age, count in self.staleness.items()) / max(1, self.actions)

    @property
    def staleness_max(self) -> int:
        """Largest staleness of an action; 0 without actions."""
        return max(self.staleness, default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one optimizer step learns from, or one share of it.

    Attributes:
        segments: those with something to learn.
        groups: the number of the group of each segment, counted from 0 in order.
        advantages: [A] float32, by batch-wide action id.
        num_action_tokens: tokens of the actions to be learnt, the normaliser of the loss.
        num_actions: the number of those actions.
        summary: of the whole batch, for reports.
        everything: whether actions without advantage count.
    """

    segments: tuple[PackableSegment, ...]
    groups: tuple[int, ...]
    advantages: Float32
    num_action_tokens: int
    num_actions: int
    summary: BatchSummary
    everything: bool = False

    def split(self, shares: int) -> "list[Batch]":
        """Whole groups in turn to each of ``shares`` parts; parts may be empty."""
        return [
            _of_segments(
                [
                    (group, segment)
                    for group, segment in zip(self.groups, self.segments, strict=True)
                    if group % shares == share
                ],
                self.advantages,
                self.summary,
                everything=self.everything,
            )
            for share in range(shares)
        ]


def build_batch(
    trajectories: Sequence[Trajectory], *, learner_version: int, objective: Objective
) -> Batch:
    """Compute advantages and keep the segments that there is something to learn from.

    Those are segments with an action of advantage other than 0; with a KL term or an entropy bonus,
    which say something about every action, all segments that hold actions.

    Args:
        trajectories: whole groups.
        learner_version: version of the weights about to be trained, for staleness.
        objective: how advantages are computed.

    Raises:
        ValueError: a trajectory failed for reasons of infrastructure, or tokens of one of its
            actions are spread over several segments.
    """
    for trajectory in trajectories:
        _check(trajectory)
    per_step = advantages_of(
        [t.step_rewards for t in trajectories], [t.group_id for t in trajectories], objective
    )
    everything = _has_penalty(objective)
    advantages = np.concatenate([np.zeros(0), *per_step]).astype(np.float32)
    lengths = np.array([len(steps) for steps in per_step], dtype=np.int64)
    firsts = np.cumsum(lengths) - lengths
    numbers = {group: n for n, group in enumerate(dict.fromkeys(t.group_id for t in trajectories))}
    every = [
        (
            numbers[t.group_id],
            segment_of_actions(segment, name=f"{t.trajectory_id}#{n}", first_action_id=int(first)),
        )
        for t, first in zip(trajectories, firsts, strict=True)
        for n, segment in enumerate(t.segments)
    ]
    kept = [
        (group, segment)
        for group, segment in every
        if _is_learnt(segment, advantages, everything=everything)
    ]
    segments = [segment for _, segment in every]
    summary = _summarise(trajectories, segments, len(kept), advantages, learner_version)
    return _of_segments(kept, advantages, summary, everything=everything)


def _has_penalty(objective: Objective) -> bool:
    return max(objective.kl_reference, objective.kl_behaviour, objective.entropy) > 0


def _is_learnt(segment: PackableSegment, advantages: Float32, *, everything: bool) -> bool:
    own = _actions_of(segment)
    return len(own) > 0 if everything else bool(advantages[own].any())


def _of_segments(
    members: Sequence[tuple[int, PackableSegment]],
    advantages: Float32,
    summary: BatchSummary,
    *,
    everything: bool = False,
) -> Batch:
    ids = np.concatenate([np.zeros(0, np.int32), *(_actions_of(s) for _, s in members)])
    learnt = np.ones(len(ids), dtype=bool) if everything else advantages[ids] != 0
    return Batch(
        segments=tuple(segment for _, segment in members),
        groups=tuple(group for group, _ in members),
        advantages=advantages,
        num_action_tokens=int(learnt.sum()),
        num_actions=len(np.unique(ids[learnt])),
        summary=summary,
        everything=everything,
    )


def _check(trajectory: Trajectory) -> None:
    if trajectory.outcome is Outcome.INFRASTRUCTURE:
        raise ValueError(
            f"trajectory '{trajectory.trajectory_id}' failed ({trajectory.failure}); it says "
            "nothing about the policy and must be dropped before a batch is built"
        )
    seen: set[int] = set()
    for segment in trajectory.segments:
        own = {int(i) for i in np.unique(segment.action_index) if i != NOT_AN_ACTION}
        if own & seen:
            raise ValueError(
                f"trajectory '{trajectory.trajectory_id}': tokens of actions "
                f"{sorted(own & seen)} are spread over several segments"
            )
        seen |= own


def _actions_of(segment: PackableSegment) -> Int32:
    """[number of action tokens], the batch-wide action id of each."""
    ids: Int32 = segment.action_ids[segment.action_ids != NOT_AN_ACTION]
    return ids


def _summarise(
    trajectories: Sequence[Trajectory],
    segments: Sequence[PackableSegment],
    num_kept: int,
    advantages: Float32,
    learner_version: int,
) -> BatchSummary:
    ids = np.concatenate([np.zeros(0, dtype=np.int32), *map(_actions_of, segments)])
    present = np.unique(ids)
    oldest = np.full(len(advantages), np.iinfo(np.int32).max, dtype=np.int32)
    for segment in segments:
        sampled = segment.action_ids != NOT_AN_ACTION
        np.minimum.at(oldest, segment.action_ids[sampled], segment.versions[sampled])
    ages = Counter(int(learner_version - version) for version in oldest[present])
    rewards = [trajectory.total_reward for trajectory in trajectories]
    return BatchSummary(
        trajectories=len(trajectories),
        groups=len({t.group_id for t in trajectories}),
        groups_without_signal=_without_signal(trajectories, advantages),
        reward_mean=float(np.mean(rewards)) if rewards else 0.0,
        actions=len(present),
        actions_without_signal=int((advantages[present] == 0).sum()),
        actions_truncated=sum(s.finish_reason == "length" for t in trajectories for s in t.steps),
        action_tokens=len(ids),
        segments_dropped=len(segments) - num_kept,
        staleness=dict(sorted(ages.items())),
    )


def _without_signal(trajectories: Sequence[Trajectory], advantages: Float32) -> int:
    """Groups in which every advantage is 0."""
    signal: dict[str, bool] = {}
    first = 0
    for trajectory in trajectories:
        end = first + len(trajectory.step_rewards)
        own = bool(advantages[first:end].any())
        signal[trajectory.group_id] = signal.get(trajectory.group_id, False) or own
        first = end
    return sum(not has for has in signal.values())
