"""Lays segments end to end within a token budget, without padding, and shares them among ranks.

A pack is what one forward and backward pass takes. Segments stay whole, so an action is never
split over two packs; no token attends to another segment, and positions restart at each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.wire.records import NOT_AN_ACTION, Float32, Int32, Segment
from learner.packs.balance import Balance, CostModel, assign_to_ranks, measure_balance

BY_TOKENS = CostModel()
"""Every token costs the same."""

_PER_TOKEN = ("token_ids", "action_ids", "behaviour_logprobs", "versions", "weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackableSegment:
    """A segment ready for packing, for reinforcement learning or supervised fine-tuning.

    What holds of every one, whatever it was made of: fields of one length, at least one token, no
    negative id, weights that are finite and not negative, and a first token that is not to be
    learnt. That ids are in the vocabulary and the length within the budget depends on the model and
    the configuration: the coordinator sees to it where trajectories arrive.

    Attributes:
        name: what an error message calls it.
        token_ids: [L] int32.
        action_ids: [L] int32, place of the token's action in the batch-wide list of actions, or
            NOT_AN_ACTION.
        behaviour_logprobs: [L] float32, natural log; 0 where nothing was sampled.
        versions: [L] int32, weight version that sampled the token, or NOT_AN_ACTION.
        weights: [L] float32, loss weight; tokens with weight 0 are context only.
    """

    name: str
    token_ids: Int32
    action_ids: Int32
    behaviour_logprobs: Float32
    versions: Int32
    weights: Float32

    def __post_init__(self) -> None:
        """Reject what breaks one of the rules above.

        Raises:
            ValueError: names the segment and the rule.
        """
        if len(self.token_ids) == 0:
            raise ValueError(f"segment '{self.name}' has no tokens")
        lengths = {field: len(getattr(self, field)) for field in _PER_TOKEN}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{field} {length}" for field, length in lengths.items())
            raise ValueError(f"segment '{self.name}': per-token fields differ in length: {listed}")
        if int(self.token_ids.min()) < 0:
            raise ValueError(
                f"segment '{self.name}': {int(self.token_ids.min())} is no id of a token"
            )
        # Not `< 0`: a weight that is not a number must not pass.
        if not bool(((self.weights >= 0) & (self.weights < np.inf)).all()):
            raise ValueError(f"segment '{self.name}': a loss weight is negative or not finite")
        if self.weights[0] != 0:
            raise ValueError(
                f"segment '{self.name}': its first token is to be learnt, but nothing precedes "
                "it; put a prompt or a start token before it"
            )

    def __len__(self) -> int:
        """Tokens, L."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """Segments laid end to end: T tokens, S segments, N targets (tokens to be learnt).

    Attributes:
        token_ids: [T] int64.
        position_ids: [T] int64, from 0 in each segment.
        segment_lengths: [S] int64, sums to T.
        targets: [N] int64, ascending places in ``token_ids`` of the tokens to be learnt; each is
            predicted by the token before it.
        action_ids: [N] int64, batch-wide action of each target; NOT_AN_ACTION without actions.
        behaviour_logprobs: [N] float32, natural log.
        versions: [N] int64, weight version of each target, or NOT_AN_ACTION.
        weights: [N] float32, loss weight of each target.
    """

    token_ids: Tensor
    position_ids: Tensor
    segment_lengths: Tensor
    targets: Tensor
    action_ids: Tensor
    behaviour_logprobs: Tensor
    versions: Tensor
    weights: Tensor

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.token_ids)

    @property
    def num_targets(self) -> int:
        """N; 0 for a pack that only keeps the collectives of the ranks in step."""
        return len(self.targets)

    @property
    def is_filler(self) -> bool:
        """Whether there are no segments in it, but a single token of no meaning."""
        return self.num_tokens == 1 and self.num_targets == 0

    def to(self, device: torch.device) -> "Pack":
        """The same pack on another device."""
        return Pack(**{name: getattr(self, name).to(device) for name in Pack.__slots__})


def segment_of_actions(segment: Segment, *, name: str, first_action_id: int) -> PackableSegment:
    """Prepare a sampled segment: every action token is a target of weight 1.

    Args:
        segment: as recorded by the actor.
        name: what an error message calls it.
        first_action_id: batch-wide id of action 0 of the segment's trajectory.
    """
    is_action = segment.action_index != NOT_AN_ACTION
    ids = np.where(is_action, segment.action_index + first_action_id, NOT_AN_ACTION)
    return PackableSegment(
        name=name,
        token_ids=segment.token_ids,
        action_ids=ids.astype(np.int32),
        behaviour_logprobs=segment.behaviour_logprobs,
        versions=segment.versions,
        weights=is_action.astype(np.float32),
    )


def segment_of_examples(
    token_ids: Sequence[int] | Int32, weights: Sequence[float] | Float32, *, name: str
) -> PackableSegment:
    """Prepare a sequence for supervised fine-tuning.

    Args:
        token_ids: [L].
        weights: [L] loss weight of each token, 0 for context; the first must be 0.
        name: what an error message calls it.
    """
    length = len(token_ids)
    nothing = np.full(length, NOT_AN_ACTION, dtype=np.int32)
    return PackableSegment(
        name=name,
        token_ids=np.asarray(token_ids, dtype=np.int32),
        action_ids=nothing,
        behaviour_logprobs=np.zeros(length, dtype=np.float32),
        versions=nothing,
        weights=np.asarray(weights, dtype=np.float32),
    )


def pack_segments(segments: Sequence[PackableSegment], *, budget: int) -> list[Pack]:
    """Pack for one process: as few packs as first-fit-decreasing finds.

    Raises:
        ValueError: a segment is longer than ``budget`` tokens.
    """
    return pack_for_ranks(segments, budget=budget, ranks=1)[0]


def pack_for_ranks(
    segments: Sequence[PackableSegment],
    *,
    budget: int,
    ranks: int,
    cost: CostModel = BY_TOKENS,
) -> list[list[Pack]]:
    """Pack for several ranks, which get the same number of packs of about the same cost.

    Args:
        segments: in any order; the result depends on it only through ties.
        budget: most tokens of one pack.
        ranks: number of processes, or of groups of processes that share a pack.
        cost: of a segment, as from ``learner.packs.balance.cost_of_model``.

    Returns:
        One list of packs per rank. Packs without segments hold one token and no target.

    Raises:
        ValueError: a segment is longer than ``budget``.
    """
    for segment in segments:
        if len(segment) > budget:
            raise ValueError(
                f"segment '{segment.name}' has {len(segment)} tokens, but a pack holds at most "
                f"{budget} (learner.pack_tokens)"
            )
    lengths = [len(segment) for segment in segments]
    costs = [cost.of_segment(len(s), int(np.count_nonzero(s.weights))) for s in segments]
    return [
        [_lay_end_to_end([segments[i] for i in members]) for members in share]
        for share in assign_to_ranks(lengths, costs, budget=budget, ranks=ranks)
    ]


def balance_of_packs(packs_by_rank: Sequence[Sequence[Pack]], cost: CostModel) -> Balance:
    """How even the work of the ranks is, for reports."""
    return measure_balance(
        [
            [cost.of_pack(pack.segment_lengths.tolist(), pack.num_targets) for pack in packs]
            for packs in packs_by_rank
        ]
    )


def filler_share(packs: Iterable[Pack]) -> float:
    """Share of tokens that belong to no segment; packs hold no other padding."""
    every = list(packs)
    fillers = sum(pack.num_tokens for pack in every if pack.is_filler)
    return fillers / max(1, sum(pack.num_tokens for pack in every))


def _lay_end_to_end(segments: Sequence[PackableSegment]) -> Pack:
    if not segments:
        segments = [segment_of_examples([0], [0.0], name="filler")]
    lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
    weights = np.concatenate([segment.weights for segment in segments])
    targets = np.flatnonzero(weights)
    positions = np.concatenate([np.arange(length) for length in lengths])
    tokens = np.concatenate([segment.token_ids for segment in segments])
    actions = np.concatenate([segment.action_ids for segment in segments])
    logprobs = np.concatenate([segment.behaviour_logprobs for segment in segments])
    versions = np.concatenate([segment.versions for segment in segments])
    return Pack(
        token_ids=_int64(tokens),
        position_ids=_int64(positions),
        segment_lengths=_int64(lengths),
        targets=_int64(targets),
        action_ids=_int64(actions[targets]),
        behaviour_logprobs=torch.from_numpy(logprobs[targets]).float(),
        versions=_int64(versions[targets]),
        weights=torch.from_numpy(weights[targets]).float(),
    )


def _int64(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
