"""The objectives, as pure functions of flat tensors: action policy gradient and cross entropy.

N tokens of a pack belong to A actions of the batch; actions without tokens here are skipped, so
results of several packs add up.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from common.config import Objective

_LOG_WEIGHT_LIMIT = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionVerdicts:
    """What the objective decided about each of A actions; nothing here carries a gradient.

    Attributes:
        present: [A] bool, the action has tokens in this pack.
        num_tokens: [A] int64, T_i.
        log_rho: [A] float32, S_i, sum of log pi - log mu over the action's tokens.
        weight: [A] float32, truncated and tempered importance weight w_i.
        staleness: [A] int64, learner version minus the oldest version of the action's tokens.
        outside_trust_region: [A] bool, masked by kappa, either side.
        vetoed: [A] bool, masked because one token's ratio is beyond ``token_veto``.
        not_finite: [A] bool, masked because a log-probability is not finite.
        too_stale: [A] bool, masked because of ``max_staleness``.
    """

    present: Tensor
    num_tokens: Tensor
    log_rho: Tensor
    weight: Tensor
    staleness: Tensor
    outside_trust_region: Tensor
    vetoed: Tensor
    not_finite: Tensor
    too_stale: Tensor

    @property
    def masked(self) -> Tensor:
        """[A] bool, actions that give no gradient for any of the reasons above."""
        return self.outside_trust_region | self.vetoed | self.not_finite | self.too_stale


@dataclass(frozen=True, kw_only=True, slots=True)
class ApgResult:
    """The loss of a pack, to be differentiated, and the verdicts behind it."""

    loss: Tensor
    verdicts: ActionVerdicts


def apg(
    learner_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    action_ids: Tensor,
    versions: Tensor,
    advantages: Tensor,
    *,
    learner_version: int,
    max_staleness: int,
    num_action_tokens: int,
    objective: Objective,
) -> ApgResult:
    """Action policy gradient: action-level importance weights with a sign-aware trust region.

    For action i with tokens t = 1..T_i, advantage A_i and d_t = log pi_t - log mu_t:

        S_i   = sum_t d_t
        tau_i = min(1, sqrt(t_ref / T_i))
        w_i   = stop_gradient(clip(exp(clip(tau_i S_i, -20, 20)), limits of the sign of A_i))
        m_i   = not (A_i > 0 and S_i / sqrt(T_i) > kappa)
                and not (A_i < 0 and S_i / sqrt(T_i) < -kappa)
                and max_t |d_t| <= log(token_veto), and all finite
                and learner version - min_t version_t <= max_staleness
        loss  = -1/num_action_tokens sum_i w_i m_i A_i sum_t log pi_t

    With every token's mu recorded when it was sampled, exp(S_i) is exact also for an action
    during which the weights changed. The trust region is fair to long actions, as the noise of
    S_i grows with sqrt(T_i).

    Args:
        learner_logprobs: [N] float32, natural log, differentiable.
        behaviour_logprobs: [N] float32, natural log, recorded at sampling time.
        action_ids: [N] int64 in [0, A).
        versions: [N] int64, weight version that sampled each token.
        advantages: [A] float32.
        learner_version: version of the weights being trained.
        max_staleness: oldest staleness, in versions, that still gives a gradient.
        num_action_tokens: action tokens of the whole optimizer step, before any mask, over all
            packs and ranks; at least 1.
        objective: the constants above.

    Returns:
        The loss of this pack; the losses of all packs add up to that of the step.

    Source:
        Truncated weights: Espeholt et al. 2018, arXiv:1802.01561. Asymmetric limits for negative
        advantages: Le Roux et al. 2025, arXiv:2503.14286. The combination is this project's.
    """
    delta = learner_logprobs.detach().float() - behaviour_logprobs.float()
    count = len(advantages)
    num_tokens = torch.bincount(action_ids, minlength=count)
    log_rho = torch.zeros(count, dtype=torch.float64, device=delta.device)
    log_rho = log_rho.index_add_(0, action_ids, delta.double()).float()
    verdicts = _judge(
        delta, action_ids, versions, num_tokens, log_rho, advantages,
        learner_version=learner_version, max_staleness=max_staleness, objective=objective,
    )  # fmt: skip
    coefficients = torch.where(verdicts.masked, 0.0, verdicts.weight * advantages)
    # A vetoed token may be -inf, and 0 * inf is not 0: leave it out of the product.
    usable = ~verdicts.masked[action_ids]
    logprobs = torch.where(usable, learner_logprobs, 0.0)
    loss = -(coefficients[action_ids] * logprobs).sum() / num_action_tokens
    return ApgResult(loss=loss, verdicts=verdicts)


def _judge(
    delta: Tensor,
    action_ids: Tensor,
    versions: Tensor,
    num_tokens: Tensor,
    log_rho: Tensor,
    advantages: Tensor,
    *,
    learner_version: int,
    max_staleness: int,
    objective: Objective,
) -> ActionVerdicts:
    largest = torch.zeros_like(log_rho).scatter_reduce_(0, action_ids, delta.abs(), "amax")
    present = num_tokens > 0
    oldest = torch.full_like(num_tokens, learner_version)
    oldest = oldest.scatter_reduce_(0, action_ids, versions, "amin", include_self=False)
    staleness = torch.where(present, learner_version - oldest, 0)
    score = log_rho / num_tokens.clamp(min=1).sqrt()
    kappa = objective.kappa
    outside = ((advantages > 0) & (score > kappa)) | ((advantages < 0) & (score < -kappa))
    finite = log_rho.isfinite() & largest.isfinite()
    return ActionVerdicts(
        present=present,
        num_tokens=num_tokens,
        log_rho=log_rho,
        weight=action_weights(log_rho, num_tokens, advantages, objective),
        staleness=staleness,
        outside_trust_region=present & finite & outside,
        vetoed=present & finite & (largest > log(objective.token_veto)),
        not_finite=present & ~finite,
        too_stale=present & (staleness > max_staleness),
    )


def action_weights(
    log_rho: Tensor, num_tokens: Tensor, advantages: Tensor, objective: Objective
) -> Tensor:
    """Tempered, truncated importance weights w_i; see ``apg``.

    Args:
        log_rho: [A] float, S_i.
        num_tokens: [A] int, T_i.
        advantages: [A] float; only the sign matters.
        objective: ``t_ref`` and the limits.

    Returns:
        [A] float within the limits of the sign of the advantage.
    """
    temper = (objective.t_ref / num_tokens.clamp(min=1)).sqrt().clamp(max=1.0)
    raw = (temper * log_rho).clamp(-_LOG_WEIGHT_LIMIT, _LOG_WEIGHT_LIMIT).exp()
    positive = raw.clamp(*objective.weight_limits_positive)
    negative = raw.clamp(*objective.weight_limits_negative)
    return torch.where(advantages >= 0, positive, negative)


def cross_entropy(logprobs: Tensor, weights: Tensor, *, total_weight: float) -> Tensor:
    """Weighted mean negative log-likelihood, for supervised fine-tuning.

    Args:
        logprobs: [N] float32, natural log, differentiable.
        weights: [N] float32.
        total_weight: sum of the weights of the whole optimizer step, over packs and ranks.

    Returns:
        This pack's part of the mean; the parts of all packs add up to it.
    """
    return -(weights * logprobs).sum() / total_weight
