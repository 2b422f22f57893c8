"""One optimizer step from a batch of trajectories, on all ranks together."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.config import Learner, Objective
from common.messages import Trajectory
from learner.batch import Batch, build_batch
from learner.breakdown import break_down, describe, no_actions
from learner.critic import Critic, TokenEstimates
from learner.exchange import Work, share_work
from learner.model import token_logprobs
from learner.objectives.penalties import kl_estimate, kl_penalty
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.optimizer import PolicyOptimizer, UpdateReport
from learner.packing import Pack, pack_for_ranks
from learner.reference import ReferenceModel
from learner.sharding import Rank
from learner.step_metrics import StepMetrics
from learner.tally import Tally, reduce_over_ranks, sum_over_ranks, tally_pack


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
        critic: Critic | None = None,
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
        self._model = model
        self._optimizer = optimizer
        self._critic = critic
        self._rank = rank
        self._config = config
        self._objective = objective
        self._temperature = temperature
        self._reference = reference

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
        batch, works = self._distribute(trajectories, version)
        proximal = [self._proximal(work) for work in works]
        estimates = self._estimate(works, trajectories)
        tally, kinds = Tally(), no_actions()
        updates: list[UpdateReport] = []
        for work, logprobs, values in zip(works, proximal, estimates, strict=True):
            own, own_kinds = self._accumulate(work, logprobs, values)
            tally += own
            kinds += own_kinds
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
            pack_budget=self._config.pack_tokens,
            kinds=describe(kinds),
        )

    def _distribute(
        self, trajectories: Sequence[Trajectory] | None, version: int
    ) -> tuple[Batch | None, list[Work]]:
        """This rank's part of every update; shares without anything to learn are left out."""
        shares = self._config.updates_per_batch
        if not self._rank.is_first:
            works = [share_work(None, None) for _ in range(shares)]
            return None, [work for work in works if work.normalisers.tokens]
        if trajectories is None:
            raise ValueError("rank 0 must bring the trajectories of the batch")
        batch = build_batch(trajectories, learner_version=version, objective=self._objective)
        works = [self._share(share, version) for share in batch.split(shares)]
        return batch, [work for work in works if work.normalisers.tokens]

    def _share(self, batch: Batch, version: int) -> Work:
        packs = pack_for_ranks(
            batch.segments, budget=self._config.pack_tokens, ranks=self._rank.count
        )
        return share_work(
            packs,
            torch.from_numpy(batch.advantages),
            version=version,
            normalisers=Normalisers(tokens=batch.num_action_tokens, actions=batch.num_actions),
        )

    @torch.no_grad()
    def _proximal(self, work: Work) -> list[Tensor | None]:
        """Log-probabilities at the start of the batch, where an update would move away from them.

        With one update per batch they are those of the update itself.
        """
        if self._objective.name != "decoupled_ppo" or self._config.updates_per_batch == 1:
            return [None for _ in work.packs]
        return [self._logprobs(pack.to(self._rank.device)) for pack in work.packs]

    def _estimate(
        self, works: Sequence[Work], trajectories: Sequence[Trajectory] | None
    ) -> Sequence[Sequence[TokenEstimates | None]]:
        """The critic's estimates for every pack of every update; None without a critic."""
        if self._critic is None:
            return [[None for _ in work.packs] for work in works]
        rewards = None if trajectories is None else [t.step_rewards for t in trajectories]
        return self._critic.estimate(works, rewards)

    def _accumulate(
        self,
        work: Work,
        proximal: Sequence[Tensor | None],
        estimates: Sequence[TokenEstimates | None],
    ) -> tuple[Tally, Tensor]:
        """Gradients of all packs of this rank, and their sums."""
        advantages = work.advantages.to(self._rank.device)
        tally, kinds = Tally(), no_actions()
        for pack, logprobs, values in zip(work.packs, proximal, estimates, strict=True):
            here = pack.to(self._rank.device)
            own, own_kinds = self._learn(here, advantages, work, logprobs, values)
            tally += own
            kinds += own_kinds
            if self._critic is not None and values is not None:
                loss = self._critic.learn(here, values, num_tokens=work.normalisers.tokens)
                tally += Tally(value_loss=loss)
        return tally, kinds

    def _learn(
        self,
        pack: Pack,
        advantages: Tensor,
        work: Work,
        proximal: Tensor | None,
        estimates: TokenEstimates | None,
    ) -> tuple[Tally, Tensor]:
        logprobs = self._logprobs(pack)
        sampled = SampledActions(
            behaviour_logprobs=pack.behaviour_logprobs,
            action_ids=pack.action_ids,
            versions=pack.versions,
            advantages=advantages,
            learner_version=work.version,
            max_staleness=self._config.max_staleness,
            token_advantages=None if estimates is None else estimates.advantages,
        )
        result = policy_loss(
            logprobs,
            sampled,
            objective=self._objective,
            normalisers=work.normalisers,
            proximal_logprobs=proximal,
        )
        penalty, divergence = self._penalty(pack, logprobs, result, work.normalisers.tokens)
        loss = result.loss + penalty
        # FSDP averages gradients over ranks, but the loss of the step is the sum of all packs.
        (loss * self._rank.count).backward()  # type: ignore[no-untyped-call]
        tally = tally_pack(pack, logprobs, loss, result.verdicts, version=work.version)
        tally += Tally(kl_reference=divergence)
        return tally, break_down(result.verdicts, advantages).cpu()

    def _penalty(
        self, pack: Pack, logprobs: Tensor, result: PolicyLoss, tokens: int
    ) -> tuple[Tensor, float]:
        """KL terms of the loss, and the sum over tokens of k3 to the reference, for reports."""
        objective, weights = self._objective, result.token_weights
        penalty, divergence = logprobs.new_zeros(()), 0.0
        if objective.kl_behaviour:
            used = (weights != 0).float()
            penalty = penalty + 2.0 * objective.kl_behaviour * kl_penalty(
                logprobs, pack.behaviour_logprobs, used, estimator="k2", num_action_tokens=tokens
            )
        if objective.kl_reference and self._reference is not None:
            reference = self._reference.logprobs(pack)
            penalty = penalty + objective.kl_reference * kl_penalty(
                logprobs,
                reference,
                weights,
                estimator=objective.kl_estimator,
                num_action_tokens=tokens,
            )
            divergence = float(kl_estimate(logprobs.detach(), reference, "k3").sum())
        return penalty, divergence

    def _logprobs(self, pack: Pack) -> Tensor:
        return token_logprobs(self._model, pack, temperature=self._temperature)
