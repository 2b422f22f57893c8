"""One optimizer step from a batch of trajectories, on all ranks together."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.config import Learner, Objective
from common.wire.records import Trajectory
from learner.engine.critic import CriticModel, TokenEstimates
from learner.engine.mesh import Rank
from learner.engine.optimizer import PolicyOptimizer, UpdateReport
from learner.engine.reference import ReferenceModel
from learner.engine.sharding import reduce_now
from learner.objectives.sampled import Normalisers
from learner.packs.balance import CostModel, cost_of_model
from learner.packs.batch import Batch, build_batch
from learner.packs.exchange import Work, share_work
from learner.packs.packing import BY_TOKENS, Pack, balance_of_packs, filler_share, pack_for_ranks
from learner.step.breakdown import describe, no_actions
from learner.step.metrics import PackingReport, StepMetrics
from learner.step.pack_step import Extras, PackStep
from learner.step.tally import Tally, reduce_over_ranks, sum_over_ranks


class TrainStep:
    """Turns batches into optimizer steps.

    Every rank owns one and calls ``run`` at the same time; rank 0 brings the trajectories. All
    ranks run equally many forward and backward passes, so their collectives match.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: PolicyOptimizer,
        rank: Rank,
        *,
        config: Learner,
        objective: Objective,
        temperature: float,
        reference: ReferenceModel | None = None,
        critic: CriticModel | None = None,
    ) -> None:
        """Take what a step needs.

        Args:
            model: sharded, in training mode.
            optimizer: of this model.
            rank: this process.
            config: pack budget, staleness bound and updates per batch.
            objective: what is minimised.
            temperature: at which training actions are sampled, above 0.
            reference: for ``objective.kl_reference`` above 0.
            critic: for ``objective.advantage = "gae"``.
        """
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0 in training, got {temperature}")
        if objective.kl_reference and reference is None:
            raise ValueError("objective.kl_reference is above 0, but there is no reference model")
        if (objective.advantage == "gae") != (critic is not None):
            raise ValueError("objective.advantage = 'gae' and a critic belong together")
        self._model, self._rank = model, rank
        self._optimizer, self._critic = optimizer, critic
        self._config, self._objective = config, objective
        self._cost = _cost_of(model)
        self._packs = PackStep(
            model,
            rank,
            config=config,
            objective=objective,
            temperature=temperature,
            reference=reference,
            critic=critic,
        )

    def run(
        self, trajectories: Sequence[Trajectory] | None, *, version: int = 0
    ) -> StepMetrics | None:
        """Learn from one batch.

        Args:
            trajectories: whole groups, on rank 0; None on the other ranks.
            version: of the weights as they are; read on rank 0 only.

        Returns:
            The metrics on rank 0, None elsewhere.

        Raises:
            ValueError: see ``build_batch`` and ``pack_for_ranks``.
        """
        began = time.perf_counter()
        batch, packed = self._pack(trajectories, version)
        works = self._distribute(batch, packed, version)
        extras = self._prepare(works, trajectories)
        tally, kinds = Tally(), no_actions()
        updates: list[UpdateReport] = []
        for work, of_packs in zip(works, extras, strict=True):
            for number, (pack, own) in enumerate(zip(work.packs, of_packs, strict=True), start=1):
                reduce_now(self._model, now=number == len(work.packs))
                part, part_kinds = self._packs.learn(pack.to(self._rank.device), work, own)
                tally += part
                kinds += part_kinds
            updates.append(self._optimizer.step())
            if self._critic is not None:
                self._critic.step()
        if works:
            tally, kinds = reduce_over_ranks(tally), sum_over_ranks(kinds)
        if batch is None:
            return None
        return StepMetrics(
            version=version,
            batch=batch.summary,
            tally=tally,
            updates=tuple(updates),
            seconds=time.perf_counter() - began,
            packing=self._report(packed),
            kinds=describe(kinds),
        )

    def _pack(
        self, trajectories: Sequence[Trajectory] | None, version: int
    ) -> tuple[Batch | None, list[tuple[Batch, list[list[Pack]]]]]:
        """On rank 0, the batch, and the packs of every update by part of the ranks."""
        if not self._rank.is_first:
            return None, []
        if trajectories is None:
            raise ValueError("rank 0 must bring the trajectories of the batch")
        batch = build_batch(trajectories, learner_version=version, objective=self._objective)
        return batch, [
            (
                share,
                pack_for_ranks(
                    share.segments,
                    budget=self._config.pack_tokens,
                    ranks=self._rank.data_count,
                    cost=self._cost,
                ),
            )
            for share in batch.split(self._config.updates_per_batch)
        ]

    def _distribute(
        self,
        batch: Batch | None,
        packed: Sequence[tuple[Batch, list[list[Pack]]]],
        version: int,
    ) -> list[Work]:
        """This rank's part of every update; shares without anything to learn are left out."""
        place = self._rank.data_index, self._rank.data_count
        if batch is None:
            updates = range(self._config.updates_per_batch)
            works = [share_work(None, None, place=place) for _ in updates]
        else:
            advantages = torch.from_numpy(batch.advantages)
            works = [
                share_work(
                    packs,
                    advantages,
                    version=version,
                    normalisers=Normalisers(
                        tokens=share.num_action_tokens, actions=share.num_actions
                    ),
                    place=place,
                )
                for share, packs in packed
            ]
        return [work for work in works if work.normalisers.tokens]

    def _prepare(
        self, works: Sequence[Work], trajectories: Sequence[Trajectory] | None
    ) -> list[list[Extras]]:
        """What every pack needs from before the first update."""
        estimates: Sequence[Sequence[TokenEstimates | None]]
        estimates = [[None for _ in work.packs] for work in works]
        if self._critic is not None:
            rewards = None if trajectories is None else [t.step_rewards for t in trajectories]
            estimates = self._critic.estimate(works, rewards)
        return [
            [
                Extras(proximal=self._proximal(pack), estimates=own)
                for pack, own in zip(work.packs, of_packs, strict=True)
            ]
            for work, of_packs in zip(works, estimates, strict=True)
        ]

    @torch.no_grad()
    def _proximal(self, pack: Pack) -> Tensor | None:
        """Log-probabilities at the start of the batch, where an update would move away from them.

        With one update per batch they are those of the update itself.
        """
        if self._objective.name != "decoupled_ppo" or self._config.updates_per_batch == 1:
            return None
        return self._packs.score(pack.to(self._rank.device)).logprobs

    def _report(self, packed: Sequence[tuple[Batch, list[list[Pack]]]]) -> PackingReport:
        by_part = [
            [pack for _, packs in packed for pack in packs[part]]
            for part in range(self._rank.data_count)
        ]
        every = [pack for packs in by_part for pack in packs]
        return PackingReport(
            budget=self._config.pack_tokens,
            fillers=filler_share(every),
            lockstep=balance_of_packs(by_part, self._cost).lockstep,
        )


def _cost_of(model: nn.Module) -> CostModel:
    """What segments cost the model; their tokens alone, where it does not say its sizes."""
    config = getattr(model, "config", None)
    return BY_TOKENS if config is None else cost_of_model(config.to_dict())
