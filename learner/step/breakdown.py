"""Importance weights by sign of the advantage, by staleness and by length of the action."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from learner.objectives.policy_loss import ActionVerdicts
from learner.step.histogram import Bins

_STALENESS = ((0, 0), (1, 1), (2, 4), (5, 8), (9, None))
_LENGTHS = ((1, 63), (64, 255), (256, 1023), (1024, None))
_LOG_LIMIT = 20.0
_SUMS = (
    "actions",
    "rho",
    "rho_squared",
    "masked",
    "weight",
    "log_rho",
    "tokens",
    "advantage",
    "advantage_squared",
)
_BINS = {
    "log_rho": Bins.by_magnitude(1e-4, _LOG_LIMIT, signed=True),
    "score": Bins.by_magnitude(1e-4, _LOG_LIMIT, signed=True),
    "weight": Bins.by_magnitude(1e-3, 1e2, signed=False),
    "tokens": Bins.by_magnitude(1.0, 1e5, signed=False),
}
PERCENTILES = {"p1": 0.01, "p99": 0.99}
"""Which are reported of each quantity."""
ALL = "all"

NAMES = (
    ALL,
    "negative",
    "positive",
    *(f"staleness_{a}" if a == b else f"staleness_{a}_{b or 'up'}" for a, b in _STALENESS),
    *(f"tokens_{a}_{b or 'up'}" for a, b in _LENGTHS),
)
"""The kinds of action that are looked at apart, after all together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfAction:
    """What is known of the actions of one kind in an optimizer step.

    Attributes:
        actions: how many.
        effective_sample_size: of rho, before any truncation.
        masked_share: share of them that gave no gradient, but for clips.
        weight_mean: importance weight, truncated.
        k1: per token, the estimate of KL(behaviour || learner).
        tokens_mean: tokens of an action.
        advantage_mean, advantage_std: over these actions.
        percentiles: of ``log_rho`` (S), ``score`` (S over the root of T), ``weight`` and
            ``tokens`` (T), each as ``name_p1`` and ``name_p99``.
    """

    actions: float
    effective_sample_size: float
    masked_share: float
    weight_mean: float = 1.0
    k1: float = 0.0
    tokens_mean: float = 0.0
    advantage_mean: float = 0.0
    advantage_std: float = 0.0
    percentiles: dict[str, float] = field(default_factory=dict)


def break_down(verdicts: ActionVerdicts, advantages: Tensor) -> Tensor:
    """Sums over the actions of a pack for every kind, which add up over packs and ranks.

    Args:
        verdicts: of A actions.
        advantages: [A] float32.

    Returns:
        [kinds, sums and bins] float64, kinds in the order of ``NAMES``; see ``describe``.
    """
    ratios = verdicts.ratios
    there = (ratios.present & ~ratios.not_finite).nonzero().squeeze(1)
    advantage, staleness = advantages[there].double(), ratios.staleness[there]
    length, weight = ratios.num_tokens[there], verdicts.weight[there].double()
    log_rho = ratios.log_rho[there].double().clamp(-_LOG_LIMIT, _LOG_LIMIT)
    rho = log_rho.exp()
    kinds = [torch.ones_like(staleness, dtype=torch.bool), advantage < 0, advantage > 0]
    kinds += [_within(staleness, *bounds) for bounds in _STALENESS]
    kinds += [_within(length, *bounds) for bounds in _LENGTHS]
    members = torch.stack(kinds)
    numbers = {
        "actions": torch.ones_like(rho),
        "rho": rho,
        "rho_squared": rho.square(),
        "masked": verdicts.masked[there].double(),
        "weight": weight,
        "log_rho": log_rho,
        "tokens": length.double(),
        "advantage": advantage,
        "advantage_squared": advantage.square(),
        "score": log_rho / length.double().sqrt(),
    }
    sums = members.double() @ torch.stack([numbers[name] for name in _SUMS], dim=1)
    counts = [bins.fill(numbers[name], members) for name, bins in _BINS.items()]
    return torch.cat([sums, *counts], dim=1)


def no_actions() -> Tensor:
    """The sums of no actions at all."""
    width = len(_SUMS) + sum(bins.count for bins in _BINS.values())
    return torch.zeros(len(NAMES), width, dtype=torch.float64)


def describe(sums: Tensor) -> dict[str, KindOfAction]:
    """What the sums of a step say, for each kind of which there are actions."""
    return {name: _describe_one(row) for name, row in zip(NAMES, sums, strict=True) if row[0] > 0}


def _describe_one(row: Tensor) -> KindOfAction:
    own = dict(zip(_SUMS, row[: len(_SUMS)].tolist(), strict=True))
    actions = own["actions"]
    mean = own["advantage"] / actions
    histograms = torch.split(row[len(_SUMS) :], [bins.count for bins in _BINS.values()])
    return KindOfAction(
        actions=actions,
        effective_sample_size=own["rho"] ** 2 / (actions * own["rho_squared"]),
        masked_share=own["masked"] / actions,
        weight_mean=own["weight"] / actions,
        k1=-own["log_rho"] / own["tokens"],
        tokens_mean=own["tokens"] / actions,
        advantage_mean=mean,
        advantage_std=max(0.0, own["advantage_squared"] / actions - mean**2) ** 0.5,
        percentiles={
            f"{name}_{label}": bins.percentile(counts, share)
            for (name, bins), counts in zip(_BINS.items(), histograms, strict=True)
            for label, share in PERCENTILES.items()
        },
    )


def _within(values: Tensor, low: int, high: int | None) -> Tensor:
    return (values >= low) if high is None else (values >= low) & (values <= high)
