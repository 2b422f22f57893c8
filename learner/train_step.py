"""One optimizer step from a batch of trajectories, on all ranks together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.config import Learner, Objective
from common.messages import Trajectory
from learner.batch import Batch, BatchSummary, build_batch
from learner.exchange import Work, share_work
from learner.model import token_logprobs
from learner.objectives.penalties import kl_penalty
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.optimizer import PolicyOptimizer, UpdateReport
from learner.packing import Pack, pack_for_ranks
from learner.sharding import Rank
from learner.tally import Tally, reduce_over_ranks, tally_pack


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What happened in one optimizer step.

    Attributes:
        version: weight version that was trained; the step makes ``version + 1`` of it.
        batch: counts of the batch, before anything was left out.
        tally: sums over the packs of all ranks.
        update: what became of the gradient; None if no action had an advantage, in which case
            weights and optimizer are untouched.
        seconds: wall time of the step on rank 0.
        pack_budget: tokens that fit a pack.
    """

    version: int
    batch: BatchSummary
    tally: Tally
    update: UpdateReport | None
    seconds: float
    pack_budget: int

    @property
    def effective_sample_size(self) -> float:
        """(sum rho)^2 / (n sum rho^2) over the trained actions, in (0, 1]; 1 is on-policy."""
        counted = self.tally.actions - self.tally.not_finite
        if counted <= 0 or self.tally.rho_squared <= 0:
            return 1.0
        return self.tally.rho**2 / (counted * self.tally.rho_squared)

    @property
    def mismatch_mean_abs(self) -> float | None:
        """Mean |log pi - log mu| over fresh tokens; None if there were none."""
        if not self.tally.fresh_tokens:
            return None
        return self.tally.fresh_abs_d / self.tally.fresh_tokens

    @property
    def mismatch_max_abs(self) -> float | None:
        """Largest |log pi - log mu| of a fresh token; None if there were none."""
        return self.tally.peak_fresh_abs_d if self.tally.fresh_tokens else None

    def as_record(self) -> dict[str, float | int | None]:
        """Flat names and numbers, for a line of metrics."""
        tally, batch, update = self.tally, self.batch, self.update
        actions, targets = max(1.0, tally.actions), max(1.0, tally.targets)
        record: dict[str, float | int | None] = {
            "version": self.version,
            "loss": tally.loss,
            "reward_mean": batch.reward_mean,
            "trajectories": batch.trajectories,
            "groups": batch.groups,
            "groups_without_signal": batch.groups_without_signal,
            "actions": batch.actions,
            "actions_without_signal": batch.actions_without_signal,
            "action_tokens": batch.action_tokens,
            "action_tokens_mean": batch.action_tokens / max(1, batch.actions),
            "segments_dropped": batch.segments_dropped,
            "staleness_mean": batch.staleness_mean,
            "staleness_max": batch.staleness_max,
            "masked_share": tally.masked / actions,
            "masked_trust_region": int(tally.outside_trust_region),
            "masked_veto": int(tally.vetoed),
            "masked_not_finite": int(tally.not_finite),
            "masked_stale": int(tally.too_stale),
            "clipped_share": tally.clipped_tokens / targets,
            "rho_mean": tally.rho / max(1.0, tally.actions - tally.not_finite),
            "weight_mean": tally.weight / max(1.0, tally.actions - tally.not_finite),
            "effective_sample_size": self.effective_sample_size,
            "k1": tally.minus_d / targets,
            "k3": tally.k3 / targets,
            "entropy_estimate": tally.minus_logprob / targets,
            "abs_d_max": tally.peak_abs_d,
            "fresh_tokens": int(tally.fresh_tokens),
            "mismatch_mean_abs": self.mismatch_mean_abs,
            "mismatch_max_abs": self.mismatch_max_abs,
            "gradient_norm": update.gradient_norm if update else None,
            "learning_rate": update.learning_rate if update else None,
            "applied": int(update.applied) if update else 0,
            "packs": int(tally.packs),
            "pack_fill": tally.tokens / max(1.0, tally.packs * self.pack_budget),
            "tokens": int(tally.tokens),
            "tokens_per_s": tally.tokens / max(1e-9, self.seconds),
            "seconds": self.seconds,
        }
        record |= {f"staleness/{age}": count for age, count in batch.staleness.items()}
        return record


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
    ) -> None:
        """Take what a step needs.

        Args:
            model: sharded, in training mode.
            optimizer: of this model.
            rank: this process.
            config: pack budget and staleness bound.
            objective: constants of the objective.
            temperature: at which training actions are sampled, above 0.
        """
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0 in training, got {temperature}")
        self._model = model
        self._optimizer = optimizer
        self._rank = rank
        self._config = config
        self._objective = objective
        self._temperature = temperature

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
        batch, work = self._distribute(trajectories, version)
        tally, update = Tally(), None
        if work.normalisers.tokens:
            tally = reduce_over_ranks(self._accumulate(work))
            update = self._optimizer.step()
        if batch is None:
            return None
        return StepMetrics(
            version=work.version,
            batch=batch.summary,
            tally=tally,
            update=update,
            seconds=time.perf_counter() - began,
            pack_budget=self._config.pack_tokens,
        )

    def _distribute(
        self, trajectories: Sequence[Trajectory] | None, version: int
    ) -> tuple[Batch | None, Work]:
        if not self._rank.is_first:
            return None, share_work(None, None)
        if trajectories is None:
            raise ValueError("rank 0 must bring the trajectories of the batch")
        batch = build_batch(trajectories, learner_version=version, objective=self._objective)
        packs = pack_for_ranks(
            batch.segments, budget=self._config.pack_tokens, ranks=self._rank.count
        )
        return batch, share_work(
            packs,
            torch.from_numpy(batch.advantages),
            version=version,
            normalisers=Normalisers(tokens=batch.num_action_tokens, actions=batch.num_actions),
        )

    def _accumulate(self, work: Work) -> Tally:
        """Gradients of all packs of this rank, and their tally."""
        advantages = work.advantages.to(self._rank.device)
        tally = Tally()
        for pack in work.packs:
            tally += self._learn(pack.to(self._rank.device), advantages, work)
        return tally

    def _learn(self, pack: Pack, advantages: Tensor, work: Work) -> Tally:
        logprobs = token_logprobs(self._model, pack, temperature=self._temperature)
        sampled = SampledActions(
            behaviour_logprobs=pack.behaviour_logprobs,
            action_ids=pack.action_ids,
            versions=pack.versions,
            advantages=advantages,
            learner_version=work.version,
            max_staleness=self._config.max_staleness,
        )
        objective = self._objective
        result = policy_loss(logprobs, sampled, objective=objective, normalisers=work.normalisers)
        loss = result.loss
        if objective.kl_behaviour:
            loss = loss + 2.0 * objective.kl_behaviour * kl_penalty(
                logprobs,
                pack.behaviour_logprobs,
                (result.token_weights != 0).float(),
                estimator="k2",
                num_action_tokens=work.normalisers.tokens,
            )
        # FSDP averages gradients over ranks, but the loss of the step is the sum of all packs.
        (loss * self._rank.count).backward()  # type: ignore[no-untyped-call]
        return tally_pack(pack, logprobs, loss, result.verdicts, version=work.version)
