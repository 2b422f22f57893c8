"""What came of a replay, and whether that is what was expected. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from common.telemetry.step_record import StepRecord
from launch.journal.steps import Steps
from launch.replay.comparison import Deviation
from learner.replay.task import TrialResult


@dataclass(frozen=True, slots=True)
class VariantOutcome:
    """One of the settings, the run's own or others, and what came of it.

    Attributes:
        label: what a table calls it.
        name: the settings.
    """

    label: str
    name: str
    trial: TrialResult

    @property
    def measures(self) -> dict[str, float]:
        """In short: over all steps, and at the end."""
        records, logprobs = self.trial.records, self.trial.logprobs
        return {
            "loss, mean": fmean(record.loss for record in records),
            "loss, last": records[-1].loss,
            "gradient norm, mean": fmean(record.grad_norm for record in records),
            "ESS, mean": fmean(record.effective_sample_share for record in records),
            "ESS, least": min(record.effective_sample_share for record in records),
            "clipped tokens": fmean(clipped(record) for record in records),
            "masked actions": fmean(masked(record) for record in records),
            "final log-probability": logprobs.mean,
            "its mean |difference|": logprobs.difference,
            "tensors that differ": float(len(self.trial.weights.differing)),
        }


def clipped(record: StepRecord) -> float:
    """Share of tokens whose gradient a clip or a band took away."""
    return record.diagnostics.get("clipped_share", 0.0)


def masked(record: StepRecord) -> float:
    """Share of actions that gave no gradient, whatever the reason."""
    return min(1.0, sum(record.masked.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """With what the run's own settings were compared.

    Attributes:
        metrics: steps whose line of ``metrics.jsonl`` there is.
        batches: steps whose line of ``batches.jsonl`` there is.
        weights: the step of each checkpoint, and how many tensors it has.
    """

    metrics: int = 0
    batches: int = 0
    weights: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOutcome:
    """All of it.

    Attributes:
        damage: why nothing was played: the journal is not as it was written; empty where it was.
        differences: of the run's own settings to what it recorded.
        variants: the run's own settings first.
    """

    run: Path
    damage: str = ""
    start: str = ""
    steps: Steps = field(default=Steps(0, 0))
    ranks: int = 1
    ranks_of_run: int = 1
    compared: Compared = field(default_factory=Compared)
    differences: tuple[Deviation, ...] = ()
    variants: tuple[VariantOutcome, ...] = ()

    @property
    def others(self) -> tuple[VariantOutcome, ...]:
        """Settings that are not the run's own."""
        return self.variants[1:]

    @property
    def is_identical(self) -> bool:
        """Nothing differs, from what was recorded and between settings."""
        same = [not variant.trial.weights.differing for variant in self.others]
        return not self.damage and not self.differences and all(same)

    def is_as_expected(self, *, different: bool) -> bool:
        """Whether all is identical; or, if ``different``, everything that was asked for differs."""
        if not different:
            return self.is_identical
        if self.others and not self.damage:
            return all(variant.trial.weights.differing for variant in self.others)
        return not self.is_identical


def told_compared(outcome: ReplayOutcome) -> Iterator[str]:
    """With what, for a person."""
    compared, steps = outcome.compared, outcome.steps
    if compared.weights:
        after = ", ".join(str(step) for step, _ in compared.weights)
        tensors = compared.weights[-1][1]
        yield f"{tensors} tensors of weights and optimizer, bit by bit, after step {after}"
    every = steps.last - steps.first + 1
    kind = "metrics" if outcome.ranks == outcome.ranks_of_run else "counters"
    if compared.metrics:
        yield f"{kind} of {compared.metrics} of {every} steps"
    if compared.batches:
        yield f"order of trajectories of {compared.batches} of {every} steps"
