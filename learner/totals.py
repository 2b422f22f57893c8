"""Sums over a whole run, kept in the checkpoint beside the coordinator's ledger."""

import time
from collections import Counter
from dataclasses import dataclass, field

import msgpack

from common.config import Config
from common.telemetry.process_totals import (
    LearnerTotals,
    LogprobMismatch,
    StalenessTotals,
    TrajectoryCounts,
)
from learner.coordination.counters import Counters
from learner.coordination.ledger import COORDINATOR
from learner.record import StepTimings
from learner.saving import FailedSaves
from learner.step.metrics import StepMetrics
from learner.weights.parity import Parity


@dataclass(slots=True)
class Totals:
    """What the summary says about the learner, over all attempts of the run.

    ``staleness`` counts actions by versions lagged; ``mismatch_*`` are absolute log-probability
    differences over all tokens whose version was the learner's; times are seconds.
    """

    staleness: Counter[int] = field(default_factory=Counter)
    mismatch_sum: float = 0.0
    mismatch_max: float = 0.0
    mismatch_tokens: int = 0
    wait_s: float = 0.0
    earlier_paused_s: float = 0.0
    """Pauses of the policy servers in the attempts before this one, up to their last checkpoint."""
    paused_here_s: float = 0.0
    """Pauses in this one: of every publish once, however it falls into steps."""
    earlier_s: float = 0.0
    """Training time of the attempts before this one, up to their last checkpoint."""
    failed_saves: FailedSaves = field(default_factory=FailedSaves)
    started_at: float = 0.0
    finished_at: float = 0.0

    @property
    def seconds(self) -> float:
        """Training time, from the first admission to the last publish (or to now)."""
        if not self.started_at:
            return self.earlier_s
        return self.earlier_s + (self.finished_at or time.monotonic()) - self.started_at

    @property
    def paused_s(self) -> float:
        """Seconds in which the policy servers were paused for new weights."""
        return self.earlier_paused_s + self.paused_here_s

    def add_parity(self, parity: Parity) -> None:
        """Count a comparison with a policy server."""
        self.mismatch_sum += parity.mean_difference * parity.tokens
        self.mismatch_max = max(self.mismatch_max, parity.max_difference)
        self.mismatch_tokens += parity.tokens

    def add_step(self, metrics: StepMetrics, timings: StepTimings) -> None:
        """Count an optimizer step."""
        self.staleness.update(metrics.batch.staleness)
        self.mismatch_sum += metrics.tally.fresh_abs_d
        self.mismatch_max = max(self.mismatch_max, metrics.tally.peak_fresh_abs_d)
        self.mismatch_tokens += int(metrics.tally.fresh_tokens)
        self.wait_s += timings.wait_s


def pack_ledger(coordinator: bytes, totals: Totals) -> bytes:
    """The bytes that a checkpoint keeps for the learner's rank 0."""
    return bytes(
        msgpack.packb(
            {
                COORDINATOR: coordinator,
                "staleness": {str(age): count for age, count in totals.staleness.items()},
                "mismatch": [totals.mismatch_sum, totals.mismatch_max, totals.mismatch_tokens],
                "failed_saves": [totals.failed_saves.count, totals.failed_saves.last],
                "seconds": [totals.wait_s, totals.paused_s, totals.seconds],
            }
        )
    )


def unpack_ledger(ledger: bytes) -> tuple[bytes, Totals]:
    """The coordinator's ledger and the totals so far, as ``pack_ledger`` was given them."""
    saved = msgpack.unpackb(ledger)
    mismatch_sum, mismatch_max, mismatch_tokens = saved["mismatch"]
    wait_s, paused_s, earlier_s = saved["seconds"]
    totals = Totals(
        staleness=Counter({int(age): count for age, count in saved["staleness"].items()}),
        mismatch_sum=mismatch_sum,
        mismatch_max=mismatch_max,
        mismatch_tokens=mismatch_tokens,
        wait_s=wait_s,
        earlier_paused_s=paused_s,
        earlier_s=earlier_s,
        failed_saves=FailedSaves(*saved.get("failed_saves", ())),
    )
    return saved[COORDINATOR], totals


def learner_totals(
    config: Config,
    totals: Totals,
    counters: Counters,
    *,
    depth: float = 0.0,
    credit: float = 1.0,
) -> LearnerTotals:
    """What the summary says about this process."""
    seconds = max(totals.seconds, 1e-9)
    ages = totals.staleness
    return LearnerTotals(
        steps=config.run.steps,
        ranks=config.learner.ranks,
        weight_versions=config.run.steps + 1,
        rl_seconds=seconds,
        idle_fraction=totals.wait_s / seconds,
        paused_seconds=totals.paused_s,
        trajectories=TrajectoryCounts(
            started=counters.started,
            finished=counters.finished,
            trained=counters.trained,
            dropped=dict(counters.dropped),
            open=counters.started - counters.trained - counters.dropped.total(),
        ),
        staleness=StalenessTotals(
            bound=config.learner.max_staleness,
            max=max(ages, default=0),
            mean=sum(age * count for age, count in ages.items()) / max(1, ages.total()),
            histogram={str(age): count for age, count in sorted(ages.items())},
            depth=depth,
            credit=credit,
        ),
        logprob_mismatch=LogprobMismatch(
            mean_abs=totals.mismatch_sum / max(1, totals.mismatch_tokens),
            max_abs=totals.mismatch_max,
            tokens=totals.mismatch_tokens,
        ),
        tokens_generated=counters.tokens_generated,
        cells_executed=counters.cells_executed,
        failed_saves=totals.failed_saves.count,
        last_failed_save=totals.failed_saves.last,
    )
