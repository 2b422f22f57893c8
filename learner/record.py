"""The record of one optimizer step, made of what the parts of the learner report."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from common.telemetry.step_record import StepRecord
from common.telemetry.writers import StepLines
from common.wire.records import Outcome, Trajectory
from learner.coordination.counters import Counters
from learner.step.metrics import StepMetrics

FamilyOf = Callable[[Trajectory], str]
"""The family a trajectory's task belongs to, for reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimings:
    """Seconds of training in all, those of one step, and what it spent them on."""

    seconds: float
    step_s: float
    wait_s: float
    train_s: float
    publish_s: float
    paused_s: float


@dataclass(frozen=True, slots=True)
class HeldoutPoint:
    """What came of an evaluation while training: success by family, and the versions it saw."""

    success: Mapping[str, float]
    versions: Mapping[str, int]


NOT_ASKED = HeldoutPoint({}, {})


def step_record(
    step: int,
    batch: Sequence[Trajectory],
    metrics: StepMetrics,
    timings: StepTimings,
    *,
    counters: Counters,
    family_of: FamilyOf,
    heldout: HeldoutPoint = NOT_ASKED,
    depth: float = 0.0,
    credit: float = 1.0,
) -> StepRecord:
    """The line that ``metrics.jsonl`` gets for ``step``."""
    tally, update = metrics.tally, metrics.update
    actions = max(1.0, tally.actions)
    return StepRecord(
        step=step,
        weight_version=step,
        seconds=timings.seconds,
        trajectories_trained=counters.trained,
        step_s=timings.step_s,
        trajectories=len(batch),
        trajectories_per_s=len(batch) / max(timings.step_s, 1e-9),
        trajectories_per_s_mean=counters.trained / max(timings.seconds, 1e-9),
        reward=metrics.batch.reward_mean,
        exact_match=fmean(t.scores["exact_match"] for t in batch),
        family_success=success_by(batch, family_of),
        heldout=dict(heldout.success),
        heldout_versions=dict(heldout.versions),
        scores=mean_scores(batch),
        signal_share=1 - metrics.batch.groups_without_signal / max(1, metrics.batch.groups),
        parsed_share=parsed_share(batch),
        cells_ok_share=cells_ok_share(batch),
        staleness={str(age): count for age, count in metrics.batch.staleness.items()},
        depth=depth,
        credit=credit,
        dropped=dict(counters.dropped),
        loss=tally.loss,
        grad_norm=update.gradient_norm if update else 0.0,
        learning_rate=update.learning_rate if update else 0.0,
        skipped=update is not None and not update.applied,
        effective_sample_share=metrics.effective_sample_size,
        masked={
            "trust_region": tally.outside_trust_region / actions,
            "veto": tally.vetoed / actions,
            "not_finite": tally.not_finite / actions,
            "stale": tally.too_stale / actions,
        },
        k3=tally.k3 / max(1.0, tally.targets),
        mismatch_mean=metrics.mismatch_mean_abs or 0.0,
        mismatch_max=metrics.mismatch_max_abs or 0.0,
        mismatch_tokens=int(tally.fresh_tokens),
        action_tokens=metrics.batch.action_tokens,
        packed_tokens=int(tally.tokens),
        steps_per_trajectory=fmean(len(t.steps) for t in batch),
        segments_per_trajectory=fmean(len(t.segments) for t in batch),
        wait_s=timings.wait_s,
        train_s=timings.train_s,
        publish_s=timings.publish_s,
        paused_s=timings.paused_s,
        diagnostics=metrics.diagnostics(),
    )


def success_by(
    trajectories: Sequence[Trajectory], family_of: Callable[[Trajectory], str]
) -> dict[str, float]:
    """Share of exact matches by family."""
    by_family: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        by_family[family_of(trajectory)].append(trajectory.scores["exact_match"])
    return {family: fmean(scores) for family, scores in sorted(by_family.items())}


def versions_of(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """The oldest and the newest version that sampled any of them; empty without actions."""
    oldest = [v for t in trajectories if (v := t.oldest_version) is not None]
    newest = [v for t in trajectories if (v := t.newest_version) is not None]
    return {"oldest": min(oldest), "newest": max(newest)} if oldest else {}


def parsed_share(trajectories: Sequence[Trajectory]) -> float:
    """Share of actions that parse; in an answered episode without cells, the answer does."""
    parsed: list[bool] = []
    for trajectory in trajectories:
        of_steps = [step.code is not None for step in trajectory.steps]
        answered = trajectory.outcome is Outcome.SUBMITTED and not any(of_steps)
        parsed += [True] * len(of_steps) if answered else of_steps
    return fmean(parsed) if parsed else 1.0


def cells_ok_share(trajectories: Sequence[Trajectory]) -> float:
    """Share of the cells written that ran without an error; 1 where none was written."""
    cells = [
        step.status == "ok"
        for trajectory in trajectories
        for step in trajectory.steps
        if step.code is not None
    ]
    return fmean(cells) if cells else 1.0


class BatchLog(StepLines):
    """``batches.jsonl``: which trajectories of the store each step was trained on."""

    def write(self, step: int, batch: Sequence[Trajectory]) -> None:
        """Add the batch that made weight version ``step``."""
        self.append({"step": step, "trajectories": [t.trajectory_id for t in batch]})


def mean_scores(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean of each score over the trajectories that have it."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        for name, score in trajectory.scores.items():
            by_name[name].append(score)
    return {name: fmean(scores) for name, scores in sorted(by_name.items())}
