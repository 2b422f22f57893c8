"""What happened in one optimizer step, and what to say when it looks wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.config import Learner
from learner.batch import BatchSummary
from learner.breakdown import KindOfAction
from learner.optimizer import UpdateReport
from learner.tally import Tally

MASKED_WARNING = 0.3
"""Share of masked actions above which a step is logged as a warning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingReport:
    """How a batch was packed.

    Attributes:
        budget: tokens that fit a pack.
        fillers: share of tokens that belong to no segment.
        lockstep: see ``learner.balance.Balance``; 1 is best.
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

        ``rho_mean`` should be near 1 on data that nothing was selected from; ``chi2`` is the mean
        of rho^2 less 1; k1, k2 and k3 estimate KL(behaviour || learner); ``mismatch_k3`` is k3 on
        tokens of the version being trained: engine against engine.
        """
        tally = self.tally
        actions, targets = max(1.0, self._finite_actions), max(1.0, tally.targets)
        found = {
            "rho_mean": tally.rho / actions,
            "chi2": tally.rho_squared / actions - 1.0,
            "weight_mean": tally.weight / actions,
            "clipped_share": tally.clipped_tokens / targets,
            "k1": tally.minus_d / targets,
            "k2": 0.5 * tally.d_squared / targets,
            "k3": tally.k3 / targets,
            "far_tokens_share": tally.far_tokens / targets,
            "abs_d_max": tally.peak_abs_d,
            "mismatch_k3": tally.fresh_k3 / max(1.0, tally.fresh_tokens),
            "kl_reference": tally.kl_reference / targets,
            "value_loss": tally.value_loss,
            "entropy": tally.entropy / targets,
            "entropy_estimate": tally.minus_logprob / targets,
            "pack_fill": tally.tokens / max(1.0, tally.packs * self.packing.budget),
            "pack_fillers": self.packing.fillers,
            "lockstep": self.packing.lockstep,
            "updates": float(len(self.updates)),
        }
        for name, kind in self.kinds.items():
            found[f"ess/{name}"] = kind.effective_sample_size
            found[f"masked/{name}"] = kind.masked_share
        return found


def warnings_of(metrics: StepMetrics, config: Learner) -> Sequence[str]:
    """What is wrong with a step and what to do about it; usually nothing."""
    found = []
    if metrics.effective_sample_size < config.ess_warning:
        found.append(
            f"effective sample size {metrics.effective_sample_size:.2f} is below "
            f"{config.ess_warning:g} (learner.ess_warning): the weights have moved far from those "
            "that sampled; lower learner.max_staleness or learner.learning_rate"
        )
    if metrics.masked_share > MASKED_WARNING:
        found.append(
            f"{100 * metrics.masked_share:.0f} % of the actions are masked, most data is wasted; "
            "lower learner.max_staleness or learner.learning_rate"
        )
    mismatch = metrics.diagnostics()["mismatch_k3"]
    if mismatch > config.mismatch_warning:
        found.append(
            f"k3 of tokens sampled by these very weights is {mismatch:.1e}, above "
            f"{config.mismatch_warning:g} (learner.mismatch_warning): policy server and learner "
            "compute differently; use the same dtype and attention on both sides, float32 logits, "
            "and no sampling filters"
        )
    return found
