"""The trajectories that the learner's benchmark trains on, from a seed.

Every episode has the same number of steps. A step adds to the context a piece of text (the prompt,
or an observation) and an action; the whole context is one segment. Its length is drawn
log-normally, given by median and 99th percentile.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray

from common.wire.records import NOT_AN_ACTION, Int32, Outcome, Purpose, Segment, Step, Trajectory
from learner.packs.packing import PackableSegment

_NORMAL_P99 = 2.3263478740408408
"""99th percentile of the standard normal distribution."""
_LEAST = 2
"""Tokens of a step at least: one of text and one of action."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a batch looks like.

    Attributes:
        groups: tasks; ``group_size`` trajectories of each.
        steps: actions of an episode.
        median_tokens: of the lengths drawn; ``p99_tokens`` their 99th percentile.
        longest_tokens: to which longer draws are cut.
        shrink: factor by which drawn lengths are divided.
        action_share: share of a step's tokens that its action has.
        vocabulary: number of token ids.
        seed: of everything.
    """

    groups: int = 4
    group_size: int = 8
    steps: int = 8
    median_tokens: int = 2048
    p99_tokens: int = 16384
    longest_tokens: int = 32768
    shrink: int = 1
    action_share: float = 0.4
    vocabulary: int = 1024
    seed: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest segment there can be, after shrinking."""
        return self.longest_tokens // self.shrink


def draw_lengths(mix: Mix, rng: np.random.Generator) -> NDArray[np.int64]:
    """[groups * group_size], tokens of each trajectory's only segment."""
    spread = log(mix.p99_tokens / mix.median_tokens) / _NORMAL_P99
    drawn = rng.lognormal(log(mix.median_tokens), spread, mix.groups * mix.group_size)
    shrunk = np.minimum(drawn, mix.longest_tokens) / mix.shrink
    lengths: NDArray[np.int64] = np.maximum(shrunk, _LEAST * mix.steps).astype(np.int64)
    return lengths


def make_trajectories(mix: Mix) -> list[Trajectory]:
    """Whole groups, sampled by weight version 0 about uniformly, each with a reward of its own."""
    rng = np.random.default_rng(mix.seed)
    nothing = [0.0] * (mix.steps - 1)
    return [
        _trajectory(
            f"{number // mix.group_size}/{number % mix.group_size}",
            _segment(mix, int(length), rng),
            [*nothing, rng.random()],
        )
        for number, length in enumerate(draw_lengths(mix, rng))
    ]


def full_length_trajectories(
    count: int, length: int, *, vocabulary: int, seed: int = 0
) -> list[Trajectory]:
    """One group of segments of exactly ``length`` tokens; all but the first are one action."""
    rng = np.random.default_rng(seed)
    owner = np.zeros(length, dtype=np.int32)
    owner[0] = NOT_AN_ACTION
    return [
        _trajectory("0/" + str(number), _sampled(owner, vocabulary, rng), [number / count])
        for number in range(count)
    ]


def _trajectory(name: str, segment: Segment, rewards: list[float]) -> Trajectory:
    """``name`` is GROUP/MEMBER."""
    group, _, member = name.partition("/")
    return Trajectory(
        trajectory_id=name,
        task_id=f"task-{group}",
        group_id=f"group-{group}",
        sample_index=int(member),
        purpose=Purpose.TRAIN,
        actor_id="benchmark",
        outcome=Outcome.SUBMITTED,
        segments=(segment,),
        step_rewards=np.array(rewards, dtype=np.float32),
        steps=tuple(Step(action="", code=None, observation="") for _ in rewards),
        answer=None,
        scores={},
    )


def _segment(mix: Mix, length: int, rng: np.random.Generator) -> Segment:
    """Steps of about the same number of tokens, give or take a half."""
    sizes = _split(length - _LEAST * mix.steps, mix.steps, rng) + _LEAST
    owners = []
    for step, size in enumerate(sizes):
        action = min(size - 1, max(1, round(mix.action_share * size)))
        owners += [NOT_AN_ACTION] * (size - action) + [step] * action
    return _sampled(np.array(owners, dtype=np.int32), mix.vocabulary, rng)


def _sampled(owner: Int32, vocabulary: int, rng: np.random.Generator) -> Segment:
    """A segment of random tokens whose actions are those that ``owner`` says."""
    sampled = owner != NOT_AN_ACTION
    return Segment(
        token_ids=rng.integers(0, vocabulary, len(owner)).astype(np.int32),
        action_index=owner,
        behaviour_logprobs=np.where(sampled, -log(vocabulary), 0.0).astype(np.float32),
        versions=np.where(sampled, 0, NOT_AN_ACTION).astype(np.int32),
    )


def _split(total: int, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers of about the same size that add up to ``total``."""
    ends = np.cumsum(rng.uniform(0.5, 1.5, parts))
    places = np.round(total * ends / ends[-1]).astype(np.int64)
    return np.diff(places, prepend=0)


def samples_by_step(segment: PackableSegment) -> Iterator[PackableSegment]:
    """What a system trains on that keeps steps, not segments: for each action the context before
    it and the action, of which only the action is learnt."""
    for action in np.unique(segment.action_ids):
        if action == NOT_AN_ACTION:
            continue
        own = segment.action_ids == action
        end = int(np.flatnonzero(own)[-1]) + 1
        yield replace(
            segment,
            name=f"{segment.name}@{action}",
            token_ids=segment.token_ids[:end],
            action_ids=np.where(own, action, NOT_AN_ACTION)[:end].astype(np.int32),
            behaviour_logprobs=segment.behaviour_logprobs[:end],
            versions=segment.versions[:end],
            weights=np.where(own, segment.weights, 0)[:end].astype(np.float32),
        )
