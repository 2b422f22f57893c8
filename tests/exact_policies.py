"""Losses of small batches given as plain tensors, and a bandit of three arms."""

from math import inf

import torch
from torch import Tensor

from common.config import Apg, Objective
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions

UNBOUNDED = Objective(
    apg=Apg(
        weight_limits_positive=(0.0, inf), weight_limits_negative=(0.0, inf), kappa=inf, t_ref=inf
    )
)
ONE = Normalisers(tokens=1, actions=1)


def loss_of(
    learner: Tensor,
    behaviour: Tensor,
    owner: Tensor,
    advantages: Tensor,
    objective: Objective = UNBOUNDED,
    *,
    normalisers: Normalisers = ONE,
    by_token: Tensor | None = None,
    proximal: Tensor | None = None,
) -> PolicyLoss:
    sampled = SampledActions(
        behaviour_logprobs=behaviour,
        action_ids=owner,
        versions=torch.zeros_like(owner),
        advantages=advantages,
        learner_version=0,
        max_staleness=0,
        token_advantages=by_token,
    )
    return policy_loss(
        learner, sampled, objective=objective, normalisers=normalisers, proximal_logprobs=proximal
    )


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


LEARNER, BEHAVIOUR = numbers(0.2, -0.1, 0.4), numbers(0.5, 0.0, -0.3)
"""Logits of the arms under the policy being trained, and under the one that sampled."""
