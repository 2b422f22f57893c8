"""The policy loss of a pack: every objective through one kernel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.config import Objective
from learner.objectives.clipped import decoupled_ppo, gspo
from learner.objectives.sampled import (
    ActionRatios,
    Normalisers,
    SampledActions,
    measure_ratios,
)
from learner.objectives.shares import Shares
from learner.objectives.weighted import apg, token_tis, topr

_OF_RATIOS = {"apg": apg, "topr": topr, "token_tis": token_tis, "gspo": gspo}


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionVerdicts:
    """What became of each of A actions; nothing here carries a gradient.

    Attributes:
        ratios: log ratios, staleness, and what no objective may learn from.
        weight: [A] float32, mean importance weight of the action's tokens.
        outside_trust_region: [A] bool, masked by the objective as a whole.
        clipped_tokens: [A] int64, tokens whose gradient a clip or a band took away.
        lowered_tokens: [A] int64, tokens whose weight is that of an upper limit.
        raised_tokens: [A] int64, tokens whose weight is that of a lower limit.
    """

    ratios: ActionRatios
    weight: Tensor
    outside_trust_region: Tensor
    clipped_tokens: Tensor
    lowered_tokens: Tensor
    raised_tokens: Tensor

    @property
    def masked(self) -> Tensor:
        """[A] bool, actions that give no gradient for any reason but a clip."""
        return self.outside_trust_region | self.ratios.unusable


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyLoss:
    """The loss of a pack, to be differentiated, and the verdicts behind it.

    Attributes:
        loss: scalar; the losses of all packs add up to that of the step.
        verdicts: by action.
        token_weights: [N] float32, importance weight of each token, 0 where its action is masked.
    """

    loss: Tensor
    verdicts: ActionVerdicts
    token_weights: Tensor


def policy_loss(
    learner_logprobs: Tensor,
    sampled: SampledActions,
    *,
    objective: Objective,
    normalisers: Normalisers,
    proximal_logprobs: Tensor | None = None,
) -> PolicyLoss:
    """The loss of ``objective`` for the actions of one pack.

    An objective gives every token a slope s_t and possibly a value; actions that are vetoed, not
    finite or too stale get neither. With the normaliser n_t of the token:

        loss = -sum_t s_t log pi_t / n_t        (its gradient; the value where one is given)

        n_t = number of action tokens                          loss_norm = "tokens"
        n_t = number of actions times T_i                      loss_norm = "actions", and gspo

    Masked actions stay in the normalisers, which are counted before any mask.

    Args:
        learner_logprobs: [N] float32, natural log, differentiable.
        sampled: the actions.
        objective: which objective, and its constants.
        normalisers: of the whole optimizer step.
        proximal_logprobs: [N] float32 for ``decoupled_ppo``; those of the learner unless given.
    """
    ratios = measure_ratios(learner_logprobs, sampled, token_veto=objective.token_veto)
    shares = _shares(ratios, sampled, objective, learner_logprobs, proximal_logprobs)
    owner = sampled.action_ids
    usable = ~ratios.unusable[owner]
    scale = _scale(ratios, owner, objective, normalisers)
    slopes = torch.where(usable, shares.slopes, 0.0) * scale
    # An unusable token may be -inf, and 0 * inf is not 0: leave it out of the product.
    logprobs = torch.where(usable & (slopes != 0), learner_logprobs, 0.0)
    loss = -(slopes * logprobs).sum()
    if shares.values is not None:
        value = -(torch.where(usable, shares.values, 0.0) * scale).sum()
        loss = loss + (value - loss.detach())
    return PolicyLoss(
        loss=loss,
        verdicts=_verdicts(ratios, shares, owner),
        token_weights=torch.where(
            usable & ~shares.outside_trust_region[owner], shares.weights, 0.0
        ),
    )


def _shares(
    ratios: ActionRatios,
    sampled: SampledActions,
    objective: Objective,
    learner_logprobs: Tensor,
    proximal_logprobs: Tensor | None,
) -> Shares:
    if objective.name != "decoupled_ppo":
        return _OF_RATIOS[objective.name](ratios, sampled, objective)
    proximal = learner_logprobs if proximal_logprobs is None else proximal_logprobs
    return decoupled_ppo(ratios, sampled, objective, learner_logprobs, proximal.detach())


def _scale(
    ratios: ActionRatios, owner: Tensor, objective: Objective, normalisers: Normalisers
) -> Tensor:
    """[N], 1 / n_t."""
    if objective.loss_norm == "actions" or objective.name == "gspo":
        return 1.0 / (normalisers.actions * ratios.num_tokens.clamp(min=1)[owner].float())
    return torch.full_like(ratios.delta, 1.0 / normalisers.tokens)


def _verdicts(ratios: ActionRatios, shares: Shares, owner: Tensor) -> ActionVerdicts:
    def sums(values: Tensor) -> Tensor:
        return torch.zeros_like(ratios.log_rho).index_add_(0, owner, values.float())

    return ActionVerdicts(
        ratios=ratios,
        weight=sums(shares.weights) / ratios.num_tokens.clamp(min=1),
        outside_trust_region=shares.outside_trust_region,
        clipped_tokens=sums(shares.clipped).long(),
        lowered_tokens=sums(shares.lowered).long(),
        raised_tokens=sums(shares.raised).long(),
    )
