"""Returns and advantages of the steps of a batch, computed once by the rank that owns it."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.config import Objective

Float64 = NDArray[np.float64]

_STD_FLOOR = 1e-6
_WHITENING_FLOOR = 1e-8
_NO_SPREAD = 1e-9


def advantages_of(
    step_rewards: Sequence[NDArray[np.floating]], group_ids: Sequence[str], objective: Objective
) -> list[Float64]:
    """The advantage of every step, as ``objective.advantage`` says; [K_i] float64 each.

    With ``gae`` the critic estimates advantages by token later; here every step counts the same.
    """
    if objective.advantage == "gae":
        return [np.ones(len(rewards)) for rewards in step_rewards]
    returns = [discounted_returns(rewards, objective.discount) for rewards in step_rewards]
    if objective.advantage == "reinforce_pp":
        return reinforce_pp(returns, clip=objective.advantage_clip)
    return group_loo(returns, group_ids, clip=objective.advantage_clip)


def has_signal(step_rewards: Sequence[NDArray[np.floating]], *, discount: float) -> bool:
    """Whether the members of one group differ in their returns, so that any has an advantage."""
    returns = [discounted_returns(rewards, discount) for rewards in step_rewards]
    compared = group_loo(returns, ["group"] * len(returns), clip=float("inf"))
    return any(bool(own.any()) for own in compared)


def discounted_returns(step_rewards: NDArray[np.floating], discount: float) -> Float64:
    """G_k = sum over j >= k of discount^(j - k) r_j.

    Args:
        step_rewards: [K], one reward per step.
        discount: in [0, 1].

    Returns:
        [K] float64.
    """
    returns = np.zeros(len(step_rewards), dtype=np.float64)
    following = 0.0
    for step in reversed(range(len(step_rewards))):
        following = float(step_rewards[step]) + discount * following
        returns[step] = following
    return returns


def group_loo(
    returns: Sequence[Float64], group_ids: Sequence[str], *, clip: float
) -> list[Float64]:
    """Advantages against the leave-one-out mean of the group, in units of the batch's spread.

    For step k of trajectory i, with siblings j of the same group:

        b_ik = mean over j != i of G_j at min(k, K_j - 1)
        A_ik = clip((G_ik - b_ik) / (std over the batch of (G - b) + 1e-6))

    The own return is left out of the baseline, because a baseline that contains it shrinks the
    gradient by (m - 1) / m, differently in groups of different size m.

    Args:
        returns: [K_i] per trajectory; trajectories without steps are allowed.
        group_ids: the group of each trajectory. A trajectory without siblings that have steps
            gets advantage 0, and does not count for the spread.
        clip: largest absolute advantage.

    Returns:
        [K_i] float64 per trajectory, in the order of ``returns``. All 0 if nothing differs.

    Source:
        Leave-one-out baseline: Ahmadian et al. 2024, arXiv:2402.14740, section 3.2.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        if len(returns[index]):
            members[group].append(index)
    centred = [np.zeros(len(own), dtype=np.float64) for own in returns]
    compared: list[Float64] = []
    for group_members in members.values():
        for index in group_members:
            siblings = [returns[other] for other in group_members if other != index]
            if siblings:
                centred[index] = returns[index] - _baseline(siblings, len(returns[index]))
                compared.append(centred[index])
    spread = float(np.concatenate(compared).std()) if compared else 0.0
    if spread < _NO_SPREAD:
        return [np.zeros_like(own) for own in centred]
    return [np.clip(own / (spread + _STD_FLOOR), -clip, clip) for own in centred]


def reinforce_pp(returns: Sequence[Float64], *, clip: float) -> list[Float64]:
    """Returns whitened over all steps of the batch, each step counting once.

        A = clip((G - mean G) / (std G + 1e-8)), with the unbiased standard deviation

    Args:
        returns: [K_i] per trajectory.
        clip: largest absolute advantage; infinity for the published form.

    Returns:
        [K_i] float64 per trajectory. All 0 for fewer than two steps, or if nothing differs.

    Source: REINFORCE++, Hu 2025, arXiv:2501.03262, on steps as in arXiv:2506.23667.
    """
    every = np.concatenate([np.zeros(0), *returns])
    spread = float(every.std(ddof=1)) if len(every) > 1 else 0.0
    if spread < _NO_SPREAD:
        return [np.zeros_like(own) for own in returns]
    mean = float(every.mean())
    return [np.clip((own - mean) / (spread + _WHITENING_FLOOR), -clip, clip) for own in returns]


def generalised_advantages(
    step_rewards: NDArray[np.floating],
    values: NDArray[np.floating],
    *,
    discount: float,
    decay: float,
) -> Float64:
    """GAE over the steps of one trajectory, with V = 0 after the last.

        delta_k = r_k + discount V_{k+1} - V_k
        A_k     = delta_k + discount decay A_{k+1}

    Args:
        step_rewards: [K].
        values: [K], the critic's values at the start of each step.
        discount: in [0, 1].
        decay: lambda, in [0, 1].

    Returns:
        [K] float64.

    Source: Schulman et al. 2015, arXiv:1506.02438.
    """
    advantages = np.zeros(len(step_rewards), dtype=np.float64)
    following, next_value = 0.0, 0.0
    for step in reversed(range(len(step_rewards))):
        delta = float(step_rewards[step]) + discount * next_value - float(values[step])
        following = delta + discount * decay * following
        advantages[step], next_value = following, float(values[step])
    return advantages


def _baseline(siblings: Sequence[Float64], num_steps: int) -> Float64:
    """[num_steps], mean of the siblings' returns at the same step or their last one."""
    steps = np.arange(num_steps)
    aligned = [sibling[np.minimum(steps, len(sibling) - 1)] for sibling in siblings]
    return np.asarray(np.mean(aligned, axis=0), dtype=np.float64)
