"""The gradient of one pack: log-probabilities, objective, penalties, and what to report of it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.config import Learner, Objective
from learner.engine.critic import CriticModel, TokenEstimates
from learner.engine.logprobs import TargetScores
from learner.engine.mesh import Rank
from learner.engine.model import score_targets
from learner.engine.reference import ReferenceModel
from learner.objectives.penalties import entropy_bonus, kl_estimate, kl_penalty
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import SampledActions
from learner.packs.exchange import Work
from learner.packs.packing import Pack
from learner.step.breakdown import break_down, no_actions
from learner.step.tally import Tally, tally_pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Extras:
    """What an update needs of a pack besides the pack.

    Attributes:
        proximal: [N] log-probabilities at the start of the batch, for ``decoupled_ppo``.
        estimates: of the critic, where there is one.
    """

    proximal: Tensor | None = None
    estimates: TokenEstimates | None = None


class PackStep:
    """Turns packs into gradients of one model."""

    def __init__(
        self,
        model: nn.Module,
        rank: Rank,
        *,
        config: Learner,
        objective: Objective,
        temperature: float,
        reference: ReferenceModel | None,
        critic: CriticModel | None,
    ) -> None:
        """See ``TrainStep``."""
        self._model, self._rank = model, rank
        self._config, self._objective = config, objective
        self._temperature = temperature
        self._reference, self._critic = reference, critic

    def score(self, pack: Pack, *, with_entropy: bool = False) -> TargetScores:
        """Log-probabilities of the pack's targets, at the sampling temperature."""
        return score_targets(
            self._model,
            pack,
            temperature=self._temperature,
            with_entropy=with_entropy,
            context=self._rank.context,
        )

    def learn(self, pack: Pack, work: Work, extras: Extras) -> tuple[Tally, Tensor]:
        """Add the gradient of one pack; its part of the tally and of the breakdown.

        Ranks that share a pack all compute its loss; one of them reports it.
        """
        advantages = work.advantages.to(self._rank.device)
        scores = self.score(pack, with_entropy=self._objective.entropy > 0)
        result = self._policy_loss(pack, scores.logprobs, advantages, work, extras)
        penalty, tally = self._penalties(pack, scores, result, work.normalisers.tokens)
        loss = result.loss + penalty
        # FSDP averages gradients over ranks, but the loss of the step is the sum of all packs.
        (loss * self._rank.count).backward()  # type: ignore[no-untyped-call]
        if self._critic is not None and extras.estimates is not None:
            value_loss = self._critic.learn(
                pack, extras.estimates, num_tokens=work.normalisers.tokens
            )
            tally += Tally(value_loss=value_loss)
        if self._rank.context is not None and self._rank.context.index:
            return Tally(), no_actions()
        tally += tally_pack(pack, scores.logprobs, loss, result.verdicts, version=work.version)
        return tally, break_down(result.verdicts, advantages).cpu()

    def _policy_loss(
        self, pack: Pack, logprobs: Tensor, advantages: Tensor, work: Work, extras: Extras
    ) -> PolicyLoss:
        estimates = extras.estimates
        sampled = SampledActions(
            behaviour_logprobs=pack.behaviour_logprobs,
            action_ids=pack.action_ids,
            versions=pack.versions,
            advantages=advantages,
            learner_version=work.version,
            max_staleness=self._config.max_staleness,
            token_advantages=None if estimates is None else estimates.advantages,
        )
        return policy_loss(
            logprobs,
            sampled,
            objective=self._objective,
            normalisers=work.normalisers,
            proximal_logprobs=extras.proximal,
        )

    def _penalties(
        self, pack: Pack, scores: TargetScores, result: PolicyLoss, tokens: int
    ) -> tuple[Tensor, Tally]:
        """What is added to the policy loss, and the sums over tokens that are reported of it."""
        objective, weights, logprobs = self._objective, result.token_weights, scores.logprobs
        penalty, tally = logprobs.new_zeros(()), Tally()
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
            with torch.no_grad():
                tally += Tally(kl_reference=float(kl_estimate(logprobs, reference, "k3").sum()))
        if objective.entropy and scores.entropies is not None:
            penalty = penalty + objective.entropy * entropy_bonus(
                scores.entropies, weights, num_action_tokens=tokens
            )
            tally += Tally(entropy=float(scores.entropies.detach().sum()))
        return penalty, tally
