"""What is said of each step: its record, its batch, what looks wrong. Rank 0 only."""

import logging
from collections.abc import Sequence

from common.config import Config
from common.errors import LZeroError
from common.telemetry.step_record import StepRecord
from common.wire.records import Trajectory
from learner.engine.optimizer import UpdateReport
from learner.head import Head
from learner.record import HeldoutPoint, StepTimings, step_record
from learner.step.metrics import StepMetrics, warnings_of
from learner.step.trends import Trends
from learner.totals import Totals

log = logging.getLogger(__name__)

SKIPPED_STEPS = 5
"""Steps in a row with a gradient that is not finite after which the run stops."""


class GradientWatch:
    """Ends a run whose gradients stay broken: more steps would change nothing."""

    def __init__(self) -> None:
        """No step is done yet."""
        self._skipped_in_row = 0

    def observe(self, update: UpdateReport | None) -> None:
        """Take down what became of the gradient of a step, None where there was none.

        Raises:
            LZeroError: it was not finite in ``SKIPPED_STEPS`` steps in a row.
        """
        if update is None or update.applied:
            self._skipped_in_row = 0
            return
        self._skipped_in_row += 1
        if self._skipped_in_row >= SKIPPED_STEPS:
            raise LZeroError(
                f"the gradient was not finite in {SKIPPED_STEPS} steps in a row (last norm "
                f"{update.gradient_norm}); such updates are left out, so weights and checkpoints "
                "are as without them; lower learner.learning_rate and resume"
            )


class StepReports:
    """Writes the record of every step, and adds it to the totals."""

    def __init__(self, config: Config, head: Head, totals: Totals) -> None:
        """No step is done yet in this attempt; ``totals`` tells of those before."""
        self._head = head
        self._totals = totals
        self._trends = Trends(steps=config.run.steps)
        self._recorded_s = totals.seconds
        self._gradients = GradientWatch()

    def write(
        self,
        version: int,
        batch: Sequence[Trajectory],
        metrics: StepMetrics,
        *,
        waited_s: float,
        trained_s: float,
        heldout: HeldoutPoint,
    ) -> None:
        """Report the step that made ``version`` of ``batch``.

        Args:
            version: of the weights after it.
            batch: what it was trained on.
            metrics: its numbers.
            waited_s: time without a batch.
            trained_s: time of the step itself.
            heldout: what came of the evaluation that ended meanwhile.

        Raises:
            LZeroError: gradients stay broken.
        """
        timings = self._timings(waited_s, trained_s)
        self._totals.add_step(metrics, timings)
        self._totals.paused_here_s = self._head.publisher.total_paused_s
        record = step_record(
            version,
            batch,
            metrics,
            timings,
            counters=self._head.intake.counters(),
            family_of=self._head.family_of,
            heldout=heldout,
            depth=self._head.intake.depth(),
            credit=self._head.intake.credit_share(),
        )
        self._keep(record, batch, metrics, timings)
        for warning in [*warnings_of(metrics), *self._trends.observe(metrics, record)]:
            log.warning("step=%d %s", version, warning)
        self._gradients.observe(metrics.update)

    def _timings(self, waited_s: float, trained_s: float) -> StepTimings:
        seconds, before = self._totals.seconds, self._recorded_s
        self._recorded_s = seconds
        return StepTimings(
            seconds=seconds,
            step_s=seconds - before,
            wait_s=waited_s,
            train_s=trained_s,
            publish_s=self._head.publisher.last_publish_s,
            paused_s=self._head.publisher.last_paused_s,
        )

    def _keep(
        self,
        record: StepRecord,
        batch: Sequence[Trajectory],
        metrics: StepMetrics,
        timings: StepTimings,
    ) -> None:
        self._head.batches.write(record.step, batch)
        for writer in self._head.writers:
            writer.write(record)
        log.info(
            "step done step=%d reward=%.3f exact_match=%.3f staleness_max=%d wait=%.2f train=%.2f",
            record.step, record.reward, record.exact_match, metrics.batch.staleness_max,
            timings.wait_s, timings.train_s,
        )  # fmt: skip
