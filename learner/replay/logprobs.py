"""Log-probabilities of the actions of a batch under several models, with the same packs for all."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.config import Config
from common.wire.records import NOT_AN_ACTION, Trajectory
from learner.engine.mesh import Rank
from learner.engine.model import score_targets
from learner.packs.exchange import share_work
from learner.packs.packing import Pack, pack_for_ranks, segment_of_actions
from learner.replay.task import LastLogprobs
from learner.step.tally import sum_over_ranks
from learner.trained import Trained


@dataclass(slots=True)
class BatchScorer:
    """This rank's packs of a batch, and what the first model that was asked said of them."""

    packs: Sequence[Pack]
    rank: Rank
    temperature: float
    first: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def score(self, trained: Trained) -> LastLogprobs:
        """What a model says; every rank must call it."""
        scores = [self._of(trained, pack) for pack in self.packs]
        self.first = self.first or scores
        counts = self.rank.context is None or self.rank.context.index == 0
        sums = torch.zeros(3, dtype=torch.float64)
        for own, other in zip(scores, self.first, strict=True):
            if counts:
                sums += torch.stack(
                    [torch.tensor(float(len(own))).double(), own.sum(), (own - other).abs().sum()]
                )
        tokens, total, difference = sum_over_ranks(sums).tolist()
        return LastLogprobs(
            tokens=int(tokens),
            mean=total / max(1.0, tokens),
            difference=difference / max(1.0, tokens),
        )

    def _of(self, trained: Trained, pack: Pack) -> Tensor:
        scores = score_targets(
            trained.model,
            pack.to(self.rank.device),
            temperature=self.temperature,
            context=self.rank.context,
        )
        return scores.logprobs.double().cpu()


def scorer_of(batch: Sequence[Trajectory] | None, config: Config, rank: Rank) -> BatchScorer:
    """Share the actions of a batch, which rank 0 has, among the ranks; every rank must call it.

    All actions are in it, whatever is learnt from them.
    """
    place = rank.data_index, rank.data_count
    if batch is None:
        work = share_work(None, None, place=place)
    else:
        segments = [
            segment_of_actions(segment, name=f"{t.trajectory_id}#{number}", first_action_id=0)
            for t in batch
            for number, segment in enumerate(t.segments)
            if (segment.action_index != NOT_AN_ACTION).any()
        ]
        packs = pack_for_ranks(
            segments, budget=config.learner.pack_tokens, ranks=rank.data_count
        )  # fmt: skip
        work = share_work(packs, torch.zeros(0), place=place)
    return BatchScorer(work.packs, rank, config.agent.temperature)
