"""Generalised advantages over the tokens of each action: the lower level of bi-level GAE."""

import torch
from torch import Tensor


def token_advantages(
    values: Tensor, action_ids: Tensor, step_returns: Tensor, *, discount: float, decay: float
) -> tuple[Tensor, Tensor]:
    """GAE inside every action, whose last token earns the return of its step.

    For the tokens t = 1..T of an action, with v_{T+1} = 0:

        r_t     = step return at t = T, else 0
        delta_t = r_t + discount v_{t+1} - v_t
        A_t     = delta_t + discount decay A_{t+1}

    Args:
        values: [N] float32, the critic's value before each token.
        action_ids: [N] int64; the tokens of an action lie together, in order.
        step_returns: [A] float32.
        discount: per token, in [0, 1].
        decay: lambda per token, in [0, 1].

    Returns:
        Advantages [N], and returns [N], which are advantages plus values.

    Source: arXiv:2506.23667, section on bi-level GAE; Zhou et al. 2024, arXiv:2402.19446.
    """
    goes_on = torch.zeros_like(action_ids, dtype=torch.bool)
    goes_on[:-1] = action_ids[1:] == action_ids[:-1]
    after = values.roll(-1)
    delta = torch.where(goes_on, discount * after, step_returns.to(values)[action_ids]) - values
    advantages = _decaying_sums(delta, action_ids, discount * decay)
    return advantages, advantages + values


def _decaying_sums(terms: Tensor, action_ids: Tensor, factor: float) -> Tensor:
    """[N], sum over j >= 0 of factor^j x_{t+j} within the action of t.

    By doubling: sums over the next 2 n tokens are those over n, here and n tokens on. That is
    log2(N) operations on whole tensors, where the recurrence takes one for every token.
    """
    sums, reach = terms.clone(), 1
    while reach < len(terms):
        further = torch.where(action_ids[reach:] == action_ids[:-reach], sums[reach:], 0.0)
        sums[:-reach] += factor**reach * further
        reach *= 2
    return sums


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float, num_tokens: int
) -> Tensor:
    """The larger of two squared errors, of the value and of the value kept near its old one.

    Args:
        values: [N] float32, differentiable.
        old_values: [N] float32, at the start of the batch.
        returns: [N] float32.
        clip: how far a value may move.
        num_tokens: over all packs and ranks.

    Returns:
        Scalar, half the mean; the parts of all packs add up.

    Source: Schulman et al. 2017 (PPO), arXiv:1707.06347, value clipping of its implementation.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    worst = torch.maximum((values - returns).square(), (near - returns).square())
    return 0.5 * worst.sum() / num_tokens
