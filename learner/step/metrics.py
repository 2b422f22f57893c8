"""What happened in one optimizer step, and what to say when it looks wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from learner.engine.optimizer import UpdateReport
from learner.packs.batch import BatchSummary
from learner.step.breakdown import ALL, KindOfAction
from learner.step.tally import FAR, Tally

ESS_WARNING = 0.5
"""Effective sample size, as a share, below which a step is logged as a warning."""

MISMATCH_WARNING = 5e-3
"""k3 of fresh tokens (learner against policy server), nats, above which a warning is logged."""

MASKED_WARNING = 0.3
"""Share of masked actions above which a step is logged as a warning."""

FAR_WARNING = 1e-3
"""Share of fresh tokens more than FAR off above which a step is logged as a warning."""

DRIFT_WARNING = 1e-2
"""Mean difference of fresh tokens, nats, beyond which a step is logged as a warning, unless it
may be chance."""

_ENOUGH_TOKENS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingReport:
    """How a batch was packed.

    Attributes:
        budget: tokens that fit a pack.
        fillers: share of tokens that belong to no segment.
        lockstep: see ``learner.packs.balance.Balance``; 1 is best.
    """

    budget: int
    fillers: float = 0.0
    lockstep: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What happened in one optimizer step.

    Attributes:
        version: weight version that was trained; the step makes ``version + 1`` of it.
        batch: counts of the batch, before anything was left out.
        tally: sums over the packs of all ranks.
        updates: what became of each gradient, one per share of the batch that had something to
            learn. If there are none, weights and optimizer are untouched.
        seconds: wall time of the step on rank 0.
        packing: how the batch was packed.
        kinds: importance weights by kind of action.
    """

    version: int
    batch: BatchSummary
    tally: Tally
    updates: tuple[UpdateReport, ...]
    seconds: float
    packing: PackingReport
    kinds: dict[str, KindOfAction] = field(default_factory=dict)

    @property
    def update(self) -> UpdateReport | None:
        """The first gradient that was not applied, else the last one; None if there was none."""
        broken = [update for update in self.updates if not update.applied]
        return next(iter(broken), self.updates[-1] if self.updates else None)

    @property
    def effective_sample_size(self) -> float:
        """(sum rho)^2 / (n sum rho^2) over the trained actions, in (0, 1]; 1 is on-policy."""
        counted = self._finite_actions
        if counted <= 0 or self.tally.rho_squared <= 0:
            return 1.0
        return self.tally.rho**2 / (counted * self.tally.rho_squared)

    @property
    def mismatch_mean_abs(self) -> float | None:
        """Mean |log pi - log mu| over fresh tokens; None if there were none."""
        if not self.tally.fresh_tokens:
            return None
        return self.tally.fresh_abs_d / self.tally.fresh_tokens

    @property
    def mismatch_max_abs(self) -> float | None:
        """Largest |log pi - log mu| of a fresh token; None if there were none."""
        return self.tally.peak_fresh_abs_d if self.tally.fresh_tokens else None

    @property
    def masked_share(self) -> float:
        """Share of actions that gave no gradient, but for clips."""
        return self.tally.masked / max(1.0, self.tally.actions)

    @property
    def _finite_actions(self) -> float:
        return self.tally.actions - self.tally.not_finite

    def diagnostics(self) -> dict[str, float]:
        """How far the learner is from the policy that sampled, as flat names and numbers.

        docs/objectives.md explains each.
        """
        found = self._of_actions() | self._of_tokens() | self._of_mismatch()
        found |= {
            "value_loss": self.tally.value_loss,
            "pack_fill": self.tally.tokens / max(1.0, self.tally.packs * self.packing.budget),
            "pack_fillers": self.packing.fillers,
            "lockstep": self.packing.lockstep,
            "updates": float(len(self.updates)),
            "group_members": self.batch.trajectories / max(1, self.batch.groups),
            "groups_without_signal": float(self.batch.groups_without_signal),
            "truncated_share": self.batch.actions_truncated / max(1, self.batch.actions),
            "advantage_zero_share": self.batch.actions_without_signal / max(1, self.batch.actions),
        }
        for name, kind in self.kinds.items():
            if name != ALL:
                found[f"ess/{name}"] = kind.effective_sample_size
                found[f"masked/{name}"] = kind.masked_share
                found[f"weight/{name}"] = kind.weight_mean
                found[f"k1/{name}"] = kind.k1
        return found

    def _of_actions(self) -> dict[str, float]:
        tally, actions = self.tally, max(1.0, self._finite_actions)
        found = {
            "rho_mean": tally.rho / actions,
            "chi2": tally.rho_squared / actions - 1.0,
            "weight_mean": tally.weight / actions,
            "ess_used": _effective_size(tally.used_weight, tally.used_weight_squared, actions),
            "versions_per_action": tally.versions_of_actions / max(1.0, tally.actions),
            "mixed_versions_share": tally.mixed_actions / max(1.0, tally.actions),
        }
        if self._finite_actions > 0:
            found["log_rho_min"], found["log_rho_max"] = (
                -tally.peak_minus_log_rho,
                tally.peak_log_rho,
            )
            found["weight_min"], found["weight_max"] = -tally.peak_minus_weight, tally.peak_weight
        if ALL in self.kinds:
            everything = self.kinds[ALL]
            found |= everything.percentiles
            found["tokens_mean"] = everything.tokens_mean
            found["advantage_mean"] = everything.advantage_mean
            found["advantage_std"] = everything.advantage_std
        return found

    def _of_tokens(self) -> dict[str, float]:
        tally, targets = self.tally, max(1.0, self.tally.targets)
        return {
            "clipped_share": tally.clipped_tokens / targets,
            "upper_limit_share": tally.lowered_tokens / targets,
            "lower_limit_share": tally.raised_tokens / targets,
            "k1": tally.minus_d / targets,
            "k2": 0.5 * tally.d_squared / targets,
            "k3": tally.k3 / targets,
            "far_tokens_share": tally.far_tokens / targets,
            "abs_d_max": tally.peak_abs_d,
            "probability_gap": tally.probability_gap / targets,
            "kl_reference": tally.kl_reference / targets,
            "entropy": tally.entropy / targets,
            "entropy_estimate": tally.minus_logprob / targets,
            "behaviour_entropy_estimate": tally.minus_behaviour_logprob / targets,
            "token_staleness_mean": tally.token_staleness / targets,
            "token_staleness_max": tally.peak_token_staleness,
        }

    def _of_mismatch(self) -> dict[str, float]:
        tally, fresh = self.tally, max(1.0, self.tally.fresh_tokens)
        return {
            "mismatch_k3": tally.fresh_k3 / fresh,
            "mismatch_d": tally.fresh_d / fresh,
            "mismatch_rms": (tally.fresh_d_squared / fresh) ** 0.5,
            "mismatch_far_share": tally.fresh_far_tokens / fresh,
        }


def _effective_size(total: float, squares: float, count: float) -> float:
    """(sum x)^2 / (n sum x^2); 0 if all x are 0."""
    return total**2 / (count * squares) if squares > 0 else 0.0


def warnings_of(metrics: StepMetrics) -> Sequence[str]:
    """What is wrong with a step and what to do about it; usually nothing."""
    found = []
    if metrics.effective_sample_size < ESS_WARNING:
        found.append(
            f"effective sample size {metrics.effective_sample_size:.2f} is below "
            f"{ESS_WARNING:g}: the weights have moved far from those "
            "that sampled; lower learner.max_staleness or learner.learning_rate"
        )
    if metrics.masked_share > MASKED_WARNING:
        found.append(
            f"{100 * metrics.masked_share:.0f} % of the actions are masked, most data is wasted; "
            "lower learner.max_staleness or learner.learning_rate"
        )
    found += _mismatch_warnings(metrics)
    return found


def _mismatch_warnings(metrics: StepMetrics) -> list[str]:
    tally, numbers = metrics.tally, metrics.diagnostics()
    causes = []
    if numbers["mismatch_k3"] > MISMATCH_WARNING:
        causes.append(
            f"k3 of tokens sampled by these very weights is {numbers['mismatch_k3']:.1e}, above "
            f"{MISMATCH_WARNING:g}"
        )
    if tally.fresh_tokens >= _ENOUGH_TOKENS:
        noise = numbers["mismatch_rms"] / tally.fresh_tokens**0.5
        if numbers["mismatch_far_share"] > FAR_WARNING:
            causes.append(
                f"{numbers['mismatch_far_share']:.1%} of the tokens sampled by these very weights "
                f"have a log-probability more than {FAR} away"
            )
        if abs(numbers["mismatch_d"]) > max(DRIFT_WARNING, 6 * noise):
            causes.append(
                "log-probabilities of tokens sampled by these very weights are off by "
                f"{numbers['mismatch_d']:+.1e} on average"
            )
    return [
        f"{cause}: policy server and learner compute differently; use the same dtype and "
        "attention on both sides, float32 logits, the same temperature, and no sampling filters"
        for cause in causes
    ]
