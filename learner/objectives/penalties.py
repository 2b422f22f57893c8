"""KL terms and the entropy bonus: what is added to a policy loss to keep the policy in bounds."""

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]

_LOG_RATIO_LIMIT = 10.0


def kl_estimate(learner_logprobs: Tensor, other_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Per-token estimate of a divergence between learner and another policy.

    With x = log other - log pi, of tokens sampled from pi:

        k1 = -x                 unbiased, but its gradient has mean 0: no penalty as a loss
        k2 = x^2 / 2            biased; as a loss it has the gradient of KL(pi || other)
        k3 = exp(x) - 1 - x     unbiased, never negative; as a loss, of KL(other || pi)

    Args:
        learner_logprobs: [N] float32, natural log, differentiable.
        other_logprobs: [N] float32, natural log.
        estimator: which.

    Returns:
        [N] float32; x is bounded to +-10, beyond which there is no gradient.

    Source: Schulman 2020, "Approximating KL divergence"; their gradients: Tang & Munos 2025,
    arXiv:2506.09477.
    """
    gap = (other_logprobs - learner_logprobs).clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    if estimator == "k1":
        return -gap
    if estimator == "k2":
        return 0.5 * gap.square()
    return gap.exp() - 1.0 - gap


def kl_penalty(
    learner_logprobs: Tensor,
    other_logprobs: Tensor,
    weights: Tensor,
    *,
    estimator: Estimator,
    num_action_tokens: int,
) -> Tensor:
    """Weighted mean of a KL estimate over the action tokens of an optimizer step.

    The weights are importance weights: without them the estimate is of the behaviour policy's
    states, not the learner's, and its gradient is biased.

    Args:
        learner_logprobs: [N] float32, natural log, differentiable.
        other_logprobs: [N] float32; a frozen reference, or the behaviour policy.
        weights: [N] float32, without gradient; 0 for masked tokens.
        estimator: see ``kl_estimate``.
        num_action_tokens: over all packs and ranks.

    Returns:
        Scalar; the parts of all packs add up.
    """
    used = weights != 0
    own = torch.where(used, learner_logprobs, 0.0)
    other = torch.where(used, other_logprobs, 0.0)
    estimate = kl_estimate(own, other, estimator)
    return (weights.detach() * estimate).sum() / num_action_tokens


def entropy_bonus(entropies: Tensor, weights: Tensor, *, num_action_tokens: int) -> Tensor:
    """Minus the weighted mean entropy of the token distributions, nats; add it to the loss.

    Args:
        entropies: [N] float32, differentiable.
        weights: [N] float32, without gradient.
        num_action_tokens: over all packs and ranks.
    """
    return -(weights.detach() * entropies).sum() / num_action_tokens
