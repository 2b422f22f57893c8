"""Counts and sums over the packs of an optimizer step, which add up across ranks."""

from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from torch import Tensor

from common.messages import NOT_AN_ACTION
from learner.objectives.policy_loss import ActionVerdicts
from learner.packing import Pack

FAR = 0.5
"""|log pi - log mu| beyond which a token counts as far off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Sums over actions or tokens, except ``peak_*``, which are maxima.

    With d = log pi - log mu of a token, and rho = exp of an action's sum of d (bounded to
    exp(+-20)), before any truncation. Tokens and actions that are not finite are left out of
    the sums. "Fresh" tokens were sampled by the very version being trained: what d is left there
    is the mismatch between learner and policy server.
    """

    loss: float = 0.0
    packs: float = 0.0
    tokens: float = 0.0
    targets: float = 0.0
    actions: float = 0.0
    rho: float = 0.0
    rho_squared: float = 0.0
    weight: float = 0.0
    outside_trust_region: float = 0.0
    vetoed: float = 0.0
    not_finite: float = 0.0
    too_stale: float = 0.0
    masked: float = 0.0
    clipped_tokens: float = 0.0
    minus_d: float = 0.0
    k3: float = 0.0
    d_squared: float = 0.0
    far_tokens: float = 0.0
    minus_logprob: float = 0.0
    fresh_tokens: float = 0.0
    fresh_abs_d: float = 0.0
    fresh_k3: float = 0.0
    kl_reference: float = 0.0
    value_loss: float = 0.0
    entropy: float = 0.0
    peak_abs_d: float = 0.0
    peak_fresh_abs_d: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        """The tally of both."""
        return Tally(
            **{
                name: max(mine, theirs) if name.startswith("peak_") else mine + theirs
                for name, mine, theirs in (
                    (f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(Tally)
                )
            }
        )


def tally_pack(
    pack: Pack, learner_logprobs: Tensor, loss: Tensor, verdicts: ActionVerdicts, *, version: int
) -> Tally:
    """Tally one pack.

    Args:
        pack: of T tokens and N targets.
        learner_logprobs: [N] float32.
        loss: scalar, before any factor for the number of ranks.
        verdicts: of the batch's A actions; those absent from the pack are left out.
        version: of the weights being trained.
    """
    d = learner_logprobs.detach().float() - pack.behaviour_logprobs
    sampled = (pack.versions != NOT_AN_ACTION) & d.isfinite()
    fresh = sampled & (pack.versions == version)
    known, fresh_abs = d[sampled], d[fresh].abs()
    ratios = verdicts.ratios
    present, there = ratios.present, ratios.present & ~ratios.not_finite
    rho = ratios.log_rho[there].clamp(-20.0, 20.0).double().exp()
    values = {
        "loss": loss.detach(),
        "actions": present.sum(),
        "rho": rho.sum(),
        "rho_squared": rho.square().sum(),
        "weight": verdicts.weight[there].sum(),
        "outside_trust_region": verdicts.outside_trust_region.sum(),
        "vetoed": ratios.vetoed.sum(),
        "not_finite": ratios.not_finite.sum(),
        "too_stale": ratios.too_stale.sum(),
        "masked": verdicts.masked.sum(),
        "clipped_tokens": verdicts.clipped_tokens.sum(),
        "minus_d": -known.sum(),
        "k3": _k3(known).sum(),
        "d_squared": known.square().sum(),
        "far_tokens": (known.abs() > FAR).sum(),
        "minus_logprob": -learner_logprobs.detach()[sampled].sum(),
        "fresh_tokens": fresh.sum(),
        "fresh_abs_d": fresh_abs.sum(),
        "fresh_k3": _k3(d[fresh]).sum(),
        "peak_abs_d": _peak(known.abs()),
        "peak_fresh_abs_d": _peak(fresh_abs),
    }
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return Tally(
        packs=1.0,
        tokens=float(pack.num_tokens),
        targets=float(pack.num_targets),
        **dict(zip(values, numbers, strict=True)),
    )


def _k3(d: Tensor) -> Tensor:
    return d.clamp(-20.0, 20.0).exp() - 1 - d


def _peak(values: Tensor) -> Tensor:
    return values.max() if len(values) else values.new_zeros(())


def reduce_over_ranks(tally: Tally) -> Tally:
    """The tally of all ranks, on each of them; the tally itself in a world of one process."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tally
    names = [f.name for f in fields(Tally)]
    peaks = [name for name in names if name.startswith("peak_")]
    sums = [name for name in names if name not in peaks]
    total = _all_reduce([getattr(tally, name) for name in sums], dist.ReduceOp.SUM)
    highest = _all_reduce([getattr(tally, name) for name in peaks], dist.ReduceOp.MAX)
    return Tally(**dict(zip([*sums, *peaks], [*total, *highest], strict=True)))


def sum_over_ranks(sums: Tensor) -> Tensor:
    """The sum over ranks of float64 numbers of any shape, on each of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return sums
    total = sums.clone()
    dist.all_reduce(total)
    return total


def _all_reduce(values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, operation)
    reduced: list[float] = tensor.tolist()
    return reduced
