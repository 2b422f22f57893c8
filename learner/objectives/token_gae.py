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
    advantages = torch.zeros_like(values)
    following = values.new_zeros(())
    next_value = values.new_zeros(())
    for place in reversed(range(len(values))):
        is_last = place + 1 == len(values) or bool(action_ids[place + 1] != action_ids[place])
        if is_last:
            following = next_value = values.new_zeros(())
        reward = step_returns[action_ids[place]] if is_last else values.new_zeros(())
        delta = reward + discount * next_value - values[place]
        following = delta + discount * decay * following
        advantages[place], next_value = following, values[place]
    return advantages, advantages + values


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
