"""Importance weights by sign of the advantage, by staleness and by length of the action."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.objectives.policy_loss import ActionVerdicts

_STALENESS = ((0, 0), (1, 1), (2, 4), (5, 8), (9, None))
_LENGTHS = ((1, 63), (64, 255), (256, 1023), (1024, None))
_LOG_LIMIT = 20.0
_COLUMNS = ("actions", "rho", "rho_squared", "masked")

NAMES = (
    "negative",
    "positive",
    *(f"staleness_{a}" if a == b else f"staleness_{a}_{b or 'up'}" for a, b in _STALENESS),
    *(f"tokens_{a}_{b or 'up'}" for a, b in _LENGTHS),
)
"""The kinds of action that are looked at apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfAction:
    """What is known of the actions of one kind in an optimizer step."""

    actions: float
    effective_sample_size: float
    masked_share: float


def break_down(verdicts: ActionVerdicts, advantages: Tensor) -> Tensor:
    """Sums over the actions of a pack for every kind, which add up over packs and ranks.

    Args:
        verdicts: of A actions.
        advantages: [A] float32.

    Returns:
        [kinds, 4] float64 in the order of ``NAMES``: actions, rho, rho^2, masked.
    """
    ratios = verdicts.ratios
    there = ratios.present & ~ratios.not_finite
    rho = ratios.log_rho.clamp(-_LOG_LIMIT, _LOG_LIMIT).double().exp()
    kinds = [advantages < 0, advantages > 0]
    kinds += [_within(ratios.staleness, *bounds) for bounds in _STALENESS]
    kinds += [_within(ratios.num_tokens, *bounds) for bounds in _LENGTHS]
    member = torch.stack(kinds) & there
    columns = torch.stack([torch.ones_like(rho), rho, rho.square(), verdicts.masked.double()])
    columns = torch.where(there, columns, 0.0)
    return member.double() @ columns.T


def no_actions() -> Tensor:
    """The sums of no actions at all."""
    return torch.zeros(len(NAMES), len(_COLUMNS), dtype=torch.float64)


def describe(sums: Tensor) -> dict[str, KindOfAction]:
    """What the sums of a step say, for each kind of which there are actions."""
    described = {}
    for name, (actions, rho, squared, masked) in zip(NAMES, sums.tolist(), strict=True):
        if actions:
            described[name] = KindOfAction(
                actions=actions,
                effective_sample_size=rho**2 / (actions * squared),
                masked_share=masked / actions,
            )
    return described


def _within(values: Tensor, low: int, high: int | None) -> Tensor:
    return (values >= low) if high is None else (values >= low) & (values <= high)
