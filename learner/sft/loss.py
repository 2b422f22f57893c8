"""The loss of supervised fine-tuning."""

from torch import Tensor


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
