"""Objectives with clipped ratio surrogates: gspo and decoupled_ppo.

Their value is a minimum of a ratio and its clipped form; where the minimum is the clipped one the
gradient is 0, elsewhere it is the ratio's.
"""

import torch
from torch import Tensor

from common.config import Objective
from learner.objectives.sampled import ActionRatios, SampledActions
from learner.objectives.shares import Shares

_LOG_RATIO_LIMIT = 20.0


def gspo(ratios: ActionRatios, sampled: SampledActions, objective: Objective) -> Shares:
    """Group sequence policy optimisation, over actions.

    With s_i = exp(S_i / T_i), the geometric mean of the token ratios:

        loss = -1/(number of actions) sum_i min(s_i A_i, clip(s_i, 1 - low, 1 + high) A_i)

    Its shares are those of a mean over the action's tokens; ``policy_loss`` divides by T_i.

    Source: Zheng et al. 2025, arXiv:2507.18071, anchored on the behaviour policy.
    """
    mean = ratios.log_rho / ratios.num_tokens.clamp(min=1)
    ratio = mean.clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT).exp()
    values, outside = _surrogate(ratio, sampled.advantages, objective.gspo.clip)
    owner = sampled.action_ids
    slopes = torch.where(outside, 0.0, ratio * sampled.advantages)
    nowhere = torch.zeros_like(owner, dtype=torch.bool)
    return Shares(
        slopes=slopes[owner],
        values=values[owner],
        weights=ratio[owner],
        outside_trust_region=torch.zeros_like(ratios.present),
        clipped=outside[owner],
        lowered=nowhere,
        raised=nowhere,
    )


def decoupled_ppo(
    ratios: ActionRatios,
    sampled: SampledActions,
    objective: Objective,
    learner_logprobs: Tensor,
    proximal_logprobs: Tensor,
) -> Shares:
    """PPO whose clip is around proximal weights and whose correction is for the behaviour policy.

    With b_t = exp(prox_t - log mu_t), masked above ``behaviour_cap``, and u_t = exp(log pi_t -
    prox_t):

        loss = -1/N sum_t b_t min(u_t A_i, clip(u_t, 1 - clip, 1 + clip) A_i)

    With one update per batch u_t = 1, and it is a masked token-level importance weight.

    Args:
        ratios: of learner to behaviour policy.
        sampled: the actions.
        objective: its table ``decoupled_ppo`` has ``clip`` and ``behaviour_cap``.
        learner_logprobs: [N] float32.
        proximal_logprobs: [N] float32, of the weights at the start of the batch.

    Source: Hilton et al. 2021, arXiv:2110.00641; Fu et al. 2025 (AReaL), arXiv:2505.24298.
    """
    limit = _LOG_RATIO_LIMIT
    behaviour = (proximal_logprobs - sampled.behaviour_logprobs).clamp(-limit, limit).exp()
    ratio = (learner_logprobs.detach() - proximal_logprobs).clamp(-limit, limit).exp()
    advantages = sampled.advantage_of_tokens
    own = objective.decoupled_ppo
    clip = own.clip, own.clip
    values, outside = _surrogate(ratio, advantages, clip)
    usable = behaviour <= own.behaviour_cap
    weights = torch.where(usable, behaviour, 0.0)
    return Shares(
        slopes=torch.where(outside, 0.0, weights * ratio * advantages),
        values=weights * values,
        weights=weights * ratio,
        outside_trust_region=torch.zeros_like(ratios.present),
        clipped=outside | ~usable,
        lowered=torch.zeros_like(usable),
        raised=torch.zeros_like(usable),
    )


def _surrogate(
    ratio: Tensor, advantages: Tensor, clip: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """min(r A, clip(r) A), and where it is the clipped side, which has no gradient."""
    low, high = 1.0 - clip[0], 1.0 + clip[1]
    values = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    outside = ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))
    return values, outside
