"""How much each token counts in a loss: what an objective decides, before normalisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.objectives.sampled import SampledActions


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """An objective's verdict on every token; nothing here carries a gradient.

    Attributes:
        slopes: [N] float32, what log pi_t is multiplied by: the derivative of the objective,
            which is maximised, with respect to it.
        values: [N] float32, the token's part of the objective's value; None where that is
            ``slopes * log pi``.
        weights: [N] float32, importance weight, for reports.
        outside_trust_region: [A] bool, masked as a whole.
        clipped: [N] bool, tokens whose gradient a clip or a band took away.
        lowered: [N] bool, tokens whose weight is that of an upper limit.
        raised: [N] bool, tokens whose weight is that of a lower limit.
    """

    slopes: Tensor
    values: Tensor | None
    weights: Tensor
    outside_trust_region: Tensor
    clipped: Tensor
    lowered: Tensor
    raised: Tensor

    @classmethod
    def weighted(
        cls,
        weights: Tensor,
        sampled: SampledActions,
        *,
        ratios: Tensor,
        outside_trust_region: Tensor,
        clipped: Tensor,
    ) -> "Shares":
        """Slope w_t A_i where neither the action is outside nor the token clipped, else 0.

        ``ratios`` [N] are the weights before any limit.
        """
        owner = sampled.action_ids
        out = clipped | outside_trust_region[owner]
        slopes = torch.where(out, 0.0, weights * sampled.advantage_of_tokens)
        return cls(
            slopes=slopes,
            values=None,
            weights=weights,
            outside_trust_region=outside_trust_region,
            clipped=clipped,
            lowered=weights < ratios,
            raised=weights > ratios,
        )
