"""Counts and sums over the packs of an optimizer step, which add up across ranks."""

from dataclasses import dataclass, fields
from math import inf

import torch
import torch.distributed as dist
from torch import Tensor

from common.wire.records import NOT_AN_ACTION
from learner.objectives.policy_loss import ActionVerdicts
from learner.packs.packing import Pack

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
    used_weight: float = 0.0
    used_weight_squared: float = 0.0
    outside_trust_region: float = 0.0
    vetoed: float = 0.0
    not_finite: float = 0.0
    too_stale: float = 0.0
    masked: float = 0.0
    clipped_tokens: float = 0.0
    lowered_tokens: float = 0.0
    raised_tokens: float = 0.0
    minus_d: float = 0.0
    k3: float = 0.0
    d_squared: float = 0.0
    far_tokens: float = 0.0
    minus_logprob: float = 0.0
    minus_behaviour_logprob: float = 0.0
    probability_gap: float = 0.0
    token_staleness: float = 0.0
    versions_of_actions: float = 0.0
    mixed_actions: float = 0.0
    fresh_tokens: float = 0.0
    fresh_d: float = 0.0
    fresh_d_squared: float = 0.0
    fresh_far_tokens: float = 0.0
    fresh_abs_d: float = 0.0
    fresh_k3: float = 0.0
    kl_reference: float = 0.0
    value_loss: float = 0.0
    entropy: float = 0.0
    peak_abs_d: float = 0.0
    peak_fresh_abs_d: float = 0.0
    peak_token_staleness: float = 0.0
    peak_log_rho: float = -inf
    peak_minus_log_rho: float = -inf
    peak_weight: float = -inf
    peak_minus_weight: float = -inf

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
    values = {"loss": loss.detach().double()}
    values |= _of_tokens(pack, learner_logprobs.detach().float(), version)
    values |= _of_actions(pack, verdicts)
    numbers = torch.stack(list(values.values())).tolist()
    return Tally(
        packs=1.0,
        tokens=float(pack.num_tokens),
        targets=float(pack.num_targets),
        **dict(zip(values, numbers, strict=True)),
    )


def _of_tokens(pack: Pack, learner_logprobs: Tensor, version: int) -> dict[str, Tensor]:
    behaviour_logprobs = pack.behaviour_logprobs
    d = learner_logprobs - behaviour_logprobs
    sampled = (pack.versions != NOT_AN_ACTION) & d.isfinite()
    fresh = d[sampled & (pack.versions == version)]
    own, theirs, staleness = (
        x[sampled].double() for x in (learner_logprobs, behaviour_logprobs, version - pack.versions)
    )
    d = d[sampled]
    sums = {
        "minus_d": -d,
        "k3": _k3(d),
        "d_squared": d.square(),
        "far_tokens": d.abs() > FAR,
        "minus_logprob": -own,
        "minus_behaviour_logprob": -theirs,
        "probability_gap": (own.exp() - theirs.exp()).abs(),
        "token_staleness": staleness,
        "fresh_tokens": torch.ones_like(fresh),
        "fresh_d": fresh,
        "fresh_d_squared": fresh.square(),
        "fresh_far_tokens": fresh.abs() > FAR,
        "fresh_abs_d": fresh.abs(),
        "fresh_k3": _k3(fresh),
    }
    peaks = {
        "peak_abs_d": _peak(d.abs(), 0.0),
        "peak_fresh_abs_d": _peak(fresh.abs(), 0.0),
        "peak_token_staleness": _peak(staleness, 0.0),
    }
    return {name: each.double().sum() for name, each in sums.items()} | peaks


def _of_actions(pack: Pack, verdicts: ActionVerdicts) -> dict[str, Tensor]:
    ratios = verdicts.ratios
    there = ratios.present & ~ratios.not_finite
    log_rho = ratios.log_rho[there].double()
    rho = log_rho.clamp(-20.0, 20.0).exp()
    weight = verdicts.weight[there].double()
    used = torch.where(verdicts.masked[there], 0.0, weight)
    versions = _versions_of_actions(pack, len(ratios.present))
    sums = {
        "actions": ratios.present,
        "rho": rho,
        "rho_squared": rho.square(),
        "weight": weight,
        "used_weight": used,
        "used_weight_squared": used.square(),
        "outside_trust_region": verdicts.outside_trust_region,
        "vetoed": ratios.vetoed,
        "not_finite": ratios.not_finite,
        "too_stale": ratios.too_stale,
        "masked": verdicts.masked,
        "clipped_tokens": verdicts.clipped_tokens,
        "lowered_tokens": verdicts.lowered_tokens,
        "raised_tokens": verdicts.raised_tokens,
        "versions_of_actions": versions,
        "mixed_actions": versions > 1,
    }
    peaks = {
        "peak_log_rho": _peak(log_rho, -inf),
        "peak_minus_log_rho": _peak(-log_rho, -inf),
        "peak_weight": _peak(weight, -inf),
        "peak_minus_weight": _peak(-weight, -inf),
    }
    return {name: each.double().sum() for name, each in sums.items()} | peaks


def _versions_of_actions(pack: Pack, num_actions: int) -> Tensor:
    """[A] int64, how many weight versions sampled each action; 0 if it is not in the pack."""
    span = int(pack.versions.max()) + 2 if pack.num_targets else 1
    both = pack.action_ids * span + pack.versions + 1
    pairs, _ = both[pack.versions != NOT_AN_ACTION].sort()
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return torch.bincount(pairs[first] // span, minlength=num_actions)


def _k3(d: Tensor) -> Tensor:
    return d.clamp(-20.0, 20.0).exp() - 1 - d


def _peak(values: Tensor, nothing: float) -> Tensor:
    return values.double().max() if len(values) else values.new_full((), nothing).double()


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
