"""The sampled actions of a pack, and what can be said about them without an objective.

N tokens of a pack belong to A actions of the batch; actions without tokens here are skipped, so
results of several packs add up. Nothing in this module carries a gradient.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledActions:
    """What was recorded when the actions of a pack were sampled, and their advantages.

    Attributes:
        behaviour_logprobs: [N] float32, natural log, recorded at sampling time.
        action_ids: [N] int64 in [0, A).
        versions: [N] int64, weight version that sampled each token.
        advantages: [A] float32, of all actions of the batch.
        learner_version: version of the weights being trained.
        max_staleness: oldest staleness, in versions, that still gives a gradient.
        token_advantages: [N] float32, where advantages differ inside an action; None for those of
            the actions.
    """

    behaviour_logprobs: Tensor
    action_ids: Tensor
    versions: Tensor
    advantages: Tensor
    learner_version: int
    max_staleness: int
    token_advantages: Tensor | None = None

    @property
    def advantage_of_tokens(self) -> Tensor:
        """[N] float32."""
        if self.token_advantages is not None:
            return self.token_advantages
        return self.advantages[self.action_ids]


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisers:
    """What the loss of an optimizer step is divided by, counted before any mask.

    Attributes:
        tokens: action tokens over all packs and ranks.
        actions: actions with at least one token, over all packs and ranks.
    """

    tokens: int
    actions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionRatios:
    """Log ratios of learner to behaviour policy, by token and by action.

    Attributes:
        delta: [N] float32, d_t = log pi_t - log mu_t.
        present: [A] bool, the action has tokens in this pack.
        num_tokens: [A] int64, T_i.
        log_rho: [A] float32, S_i, the sum of d_t over the action's tokens.
        staleness: [A] int64, learner version minus the oldest version of the action's tokens.
        vetoed: [A] bool, one token's ratio is beyond ``token_veto``.
        not_finite: [A] bool, a log-probability is not finite.
        too_stale: [A] bool, staler than ``max_staleness``.
    """

    delta: Tensor
    present: Tensor
    num_tokens: Tensor
    log_rho: Tensor
    staleness: Tensor
    vetoed: Tensor
    not_finite: Tensor
    too_stale: Tensor

    @property
    def unusable(self) -> Tensor:
        """[A] bool, actions that no objective may learn from."""
        return self.vetoed | self.not_finite | self.too_stale


def measure_ratios(
    learner_logprobs: Tensor, sampled: SampledActions, *, token_veto: float
) -> ActionRatios:
    """Compare the learner with the policy that sampled the actions.

    With every token's mu recorded when it was sampled, S_i is exact also for an action during
    which the weights changed. Sums are taken in float64.

    Args:
        learner_logprobs: [N] float32, natural log.
        sampled: the actions.
        token_veto: largest ratio of a token, either way.
    """
    delta = learner_logprobs.detach().float() - sampled.behaviour_logprobs.float()
    owner, count = sampled.action_ids, len(sampled.advantages)
    num_tokens = torch.bincount(owner, minlength=count)
    log_rho = torch.zeros(count, dtype=torch.float64, device=delta.device)
    log_rho = log_rho.index_add_(0, owner, delta.double()).float()
    largest = torch.zeros_like(log_rho).scatter_reduce_(0, owner, delta.abs(), "amax")
    present = num_tokens > 0
    oldest = torch.full_like(num_tokens, sampled.learner_version)
    oldest = oldest.scatter_reduce_(0, owner, sampled.versions, "amin", include_self=False)
    staleness = torch.where(present, sampled.learner_version - oldest, 0)
    finite = log_rho.isfinite() & largest.isfinite()
    return ActionRatios(
        delta=delta,
        present=present,
        num_tokens=num_tokens,
        log_rho=log_rho,
        staleness=staleness,
        vetoed=present & finite & (largest > log(token_veto)),
        not_finite=present & ~finite,
        too_stale=present & (staleness > sampled.max_staleness),
    )
