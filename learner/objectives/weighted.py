"""Objectives that weigh log-probabilities by a constant: apg, topr and token_tis.

Their gradient on log pi_t is -w A / normaliser with a weight w through which no gradient flows.
"""

from math import inf

import torch
from torch import Tensor

from common.config import Objective
from learner.objectives.sampled import ActionRatios, SampledActions
from learner.objectives.shares import Shares

_LOG_WEIGHT_LIMIT = 20.0
_TOPR_POSITIVE, _TOPR_NEGATIVE = (1.0, 1.0), (0.0, 1.0)


def apg(ratios: ActionRatios, sampled: SampledActions, objective: Objective) -> Shares:
    """Action policy gradient: action-level importance weights with a sign-aware trust region.

    For action i with tokens t = 1..T_i and advantage A_i:

        tau_i = min(1, sqrt(t_ref / T_i))
        w_i   = clip(exp(clip(tau_i S_i, -20, 20)), limits of the sign of A_i)
        m_i   = not (A_i > 0 and S_i / sqrt(T_i) > kappa)
                and not (A_i < 0 and S_i / sqrt(T_i) < -kappa)
        loss  = -1/N sum_i w_i m_i A_i sum_t log pi_t

    The trust region is fair to long actions, as the noise of S_i grows with sqrt(T_i).

    Source:
        Truncated weights: Espeholt et al. 2018, arXiv:1802.01561. Asymmetric limits for negative
        advantages: Le Roux et al. 2025, arXiv:2503.14286. The combination is this project's.
    """
    own = objective.apg
    limits = own.weight_limits_positive, own.weight_limits_negative
    return _by_action(ratios, sampled, kappa=own.kappa, t_ref=own.t_ref, limits=limits)


def topr(ratios: ActionRatios, sampled: SampledActions, objective: Objective) -> Shares:
    """Tapered off-policy REINFORCE: weight 1 for A >= 0, else min(rho_i, 1).

    The exact product of ratios, untempered. ``kappa`` adds the trust region of ``apg``; infinity
    gives the published objective.

    Source: Le Roux et al. 2025, arXiv:2503.14286, with a+ = b+ = 1, a- = 0, b- = 1.
    """
    limits = _TOPR_POSITIVE, _TOPR_NEGATIVE
    return _by_action(ratios, sampled, kappa=objective.topr.kappa, t_ref=inf, limits=limits)


def token_tis(ratios: ActionRatios, sampled: SampledActions, objective: Objective) -> Shares:
    """Token-level truncated importance sampling: weight min(r_t, cap), r_t = exp(d_t).

    A token whose ratio is outside ``band`` gets no gradient (off by default).

    Source:
        CISPO: MiniMax 2025, arXiv:2506.13585, anchored on the behaviour policy. The band:
        IcePop, Ling team 2025.
    """
    ratio = ratios.delta.clamp(-_LOG_WEIGHT_LIMIT, _LOG_WEIGHT_LIMIT).exp()
    low, high = objective.token_tis.band
    outside = (ratio < low) | (ratio > high)
    weights = ratio.clamp(max=objective.token_tis.cap)
    nowhere = torch.zeros_like(ratios.present)
    return Shares.weighted(
        weights, sampled, ratios=ratio, outside_trust_region=nowhere, clipped=outside
    )


def action_weights(
    log_rho: Tensor,
    num_tokens: Tensor,
    advantages: Tensor,
    *,
    t_ref: float,
    limits: tuple[tuple[float, float], tuple[float, float]],
) -> Tensor:
    """Tempered, truncated importance weights w_i; see ``apg``.

    Args:
        log_rho: [A] float, S_i.
        num_tokens: [A] int, T_i.
        advantages: [A] float; only the sign matters.
        t_ref: actions longer than this many tokens are tempered.
        limits: of the weight where the advantage is not negative, and where it is.

    Returns:
        [A] float within the limits of the sign of the advantage.
    """
    raw = tempered_ratios(log_rho, num_tokens, t_ref=t_ref)
    return torch.where(advantages >= 0, raw.clamp(*limits[0]), raw.clamp(*limits[1]))


def tempered_ratios(log_rho: Tensor, num_tokens: Tensor, *, t_ref: float) -> Tensor:
    """[A], exp(tau_i S_i) without limits; see ``apg``."""
    temper = (t_ref / num_tokens.clamp(min=1)).sqrt().clamp(max=1.0)
    return (temper * log_rho).clamp(-_LOG_WEIGHT_LIMIT, _LOG_WEIGHT_LIMIT).exp()


def _by_action(
    ratios: ActionRatios,
    sampled: SampledActions,
    *,
    kappa: float,
    t_ref: float,
    limits: tuple[tuple[float, float], tuple[float, float]],
) -> Shares:
    own, owner = (ratios.log_rho, ratios.num_tokens), sampled.action_ids
    weights = action_weights(*own, sampled.advantages, t_ref=t_ref, limits=limits)
    return Shares.weighted(
        weights[owner],
        sampled,
        ratios=tempered_ratios(*own, t_ref=t_ref)[owner],
        outside_trust_region=_outside(ratios, sampled, kappa),
        clipped=torch.zeros_like(owner, dtype=torch.bool),
    )


def _outside(ratios: ActionRatios, sampled: SampledActions, kappa: float) -> Tensor:
    """[A] bool, actions that already moved more than kappa where their advantage points."""
    score = ratios.log_rho / ratios.num_tokens.clamp(min=1).sqrt()
    advantages = sampled.advantages
    beyond = ((advantages > 0) & (score > kappa)) | ((advantages < 0) & (score < -kappa))
    return ratios.present & ~ratios.not_finite & beyond
