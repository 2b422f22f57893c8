"""The training loop: the order of things, and nothing else.

consumes   batches of complete fresh groups (``learner.coordination.intake``)
produces   weight versions, checkpoints, one record of metrics a step
waits for  a full batch; before a publish, for the publish before and a running evaluation
unblocked by  actors (batches, evaluations) and policy servers (publishes)

The learner trains step v on weights of version v and publishes version v + 1 beside the next step.
Steps that the journal holds are trained first, on the batches they had; nothing is published before
they are done.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from common.config import Config
from common.errors import LZeroError
from common.telemetry.step_record import StepRecord
from common.telemetry.writers import MetricWriter
from common.wire.records import Task, Trajectory
from learner.checkpoints.state import Progress
from learner.coordination.intake import Intake
from learner.coordination.replay import Replay
from learner.engine.agreement import broadcast_number
from learner.engine.mesh import Rank
from learner.profiling import StepProfiler
from learner.record import BatchLog, StepTimings, step_record, success_by
from learner.step.metrics import StepMetrics, warnings_of
from learner.step.train_step import TrainStep
from learner.step.trends import Trends
from learner.totals import Totals, pack_ledger
from learner.weights.background import BackgroundPublisher
from learner.weights.contents import weights_to_publish
from learner.weights.verifier import ParityVerifier, random_prompts, real_prompts

log = logging.getLogger(__name__)

VERIFIED_FIRST, VERIFY_EVERY = 5, 10
"""Updates after which server and learner log-probabilities are compared: the first, then each so
many."""
SKIPPED_STEPS = 5
"""Steps in a row with a gradient that is not finite after which the run stops."""


class Saver(Protocol):
    """Something that keeps a checkpoint."""

    def save(self, progress: Progress) -> object:
        """Save the state, and where it stands; every rank calls it together."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What only rank 0 has: the way to the actors and to the policy servers."""

    intake: Intake
    publisher: BackgroundPublisher
    writers: Sequence[MetricWriter]
    family_of: Callable[[Trajectory], str]
    heldout: Sequence[Task]
    heldout_temperature: float = 1.0
    """Of the questions that are asked while training."""
    batches: BatchLog
    replay: Replay | None = None
    """The journal since the checkpoint that the run goes on from."""
    oldest_checkpoint: Callable[[], int | None] = lambda: None
    """Step of the oldest checkpoint that is kept."""
    first_prompts: Sequence[Sequence[int]] = ()
    """Token ids, for the comparison with the servers before there is a batch."""


class TrainingLoop:
    """Runs the steps of a training run; one object on every rank, ``head`` on rank 0 only."""

    def __init__(
        self,
        config: Config,
        *,
        model: nn.Module,
        vocabulary: int,
        rank: Rank,
        train_step: TrainStep,
        verifier: ParityVerifier,
        saver: Saver,
        head: Head | None,
        first_step: int,
        totals: Totals,
        profiler: StepProfiler | None = None,
    ) -> None:
        """``first_step`` steps have been done already, of which ``totals`` tells."""
        self._config = config
        self._model = model
        self._vocabulary = vocabulary
        self._rank = rank
        self._train_step = train_step
        self._verifier = verifier
        self._saver = saver
        self._head = head
        self._first_step = first_step
        self._first_live_step = first_step
        """The first step whose batch is not in the journal."""
        self._profiler = profiler
        self._heldout: dict[str, float] = {}
        self._evaluating = False
        self._skipped_in_row = 0
        self._trends = Trends(steps=config.run.steps)
        self._recorded_s = totals.seconds
        self.totals = totals

    def run(self) -> None:
        """Train to the last step.

        Raises:
            LZeroError: a batch did not come, servers and learner disagree, gradients stay broken.
        """
        self._replay()
        live = self._first_live_step
        self._publish(live, wait=True)
        self._verify(live, [])
        if self._head is not None:
            self._head.intake.go_live()  # nobody samples with other weights than these
        self.totals.started_at = self.totals.started_at or time.monotonic()
        if live > self._first_step:
            self._resume_evaluation(live)
        for step in range(live, self._config.run.steps):
            self._step(step)
        if self._head is not None:
            self._head.publisher.wait()
            self.totals.finished_at = time.monotonic()
            self.totals.paused_here_s = self._head.publisher.total_paused_s

    def _replay(self) -> None:
        """Train the steps of the journal again, on the batches that they had."""
        replay = self._head.replay if self._head is not None else None
        batches = broadcast_number(replay.batches if replay is not None else 0)
        self._first_live_step += batches
        if batches:
            self.totals.started_at = time.monotonic()
            log.info("journal played steps=%d to=%d", batches, self._first_live_step)
        for step in range(self._first_step, self._first_live_step):
            self._step(step)
        if replay is not None:
            replay.rest()

    def _step(self, step: int) -> None:
        began = time.monotonic()
        batch = self._take_batch(step)
        waited = time.monotonic() - began
        with self._profiled(step + 1):
            metrics = self._train_step.run(batch, version=step)
        trained = time.monotonic()
        version = step + 1
        if step >= self._first_live_step:
            self._follow_up(version, batch or [])
        elif self._head is not None and self._head.replay is not None:
            self._heldout = success_by(self._head.replay.rest(), self._head.family_of)
        if self._head is not None and metrics is not None and batch is not None:
            seconds, before = self.totals.seconds, self._recorded_s
            self._recorded_s = seconds
            timings = StepTimings(
                seconds=seconds,
                step_s=seconds - before,
                wait_s=waited,
                train_s=trained - began - waited,
                publish_s=self._head.publisher.last_publish_s,
                paused_s=self._head.publisher.last_paused_s,
            )
            record = self._record(self._head, step, batch, metrics, timings)
            every = [
                *warnings_of(metrics),
                *self._trends.observe(metrics, record),
            ]
            for warning in every:
                log.warning("step=%d %s", step + 1, warning)
            self._check_gradients(metrics)
        if version % self._config.learner.checkpoint_every == 0 or self._is_last(version):
            ledger = self._ledger(version)
            self._saver.save(Progress(step=version, weight_version=version, ledger=ledger))

    def _follow_up(self, version: int, batch: Sequence[Trajectory]) -> None:
        """Publish what was trained, and compare and evaluate where that is due."""
        verify = self._is_verified(version)
        self._finish_evaluation()
        self._publish(version, wait=verify)
        if verify:
            self._verify(version, batch)
        self._start_evaluation(version)

    def _profiled(self, number: int) -> AbstractContextManager[None]:
        return nullcontext() if self._profiler is None else self._profiler.step(number)

    def _ledger(self, step: int) -> bytes:
        if self._head is None:
            return b""
        self._head.intake.forget_before(self._head.oldest_checkpoint())
        return pack_ledger(self._head.intake.ledger(step=step), self.totals)

    def _take_batch(self, step: int) -> list[Trajectory] | None:
        if self._head is None:
            return None
        if self._head.replay is not None and step < self._first_live_step:
            return self._head.replay.batch(step)
        return self._head.intake.take_batch(
            learner_version=step, timeout_s=self._config.learner.batch_timeout_s
        )

    # ---- publishing and checking -------------------------------------------------------------

    def _publish(self, version: int, *, wait: bool) -> None:
        state = weights_to_publish(
            self._model,
            complete=version == self._first_live_step,
            dtype=getattr(torch, self._config.model.compute_dtype),
        )
        if self._head is None:
            return
        self._head.publisher.submit(version, state)
        if wait:
            self._head.publisher.wait()

    def _is_verified(self, version: int) -> bool:
        return version <= self._first_live_step + VERIFIED_FIRST or version % VERIFY_EVERY == 0

    def _verify(self, version: int, batch: Sequence[Trajectory]) -> None:
        """Compare with the servers on prompts of ``batch``, or where it has none on the first."""
        if self._head is None:
            self._verifier.take_part()
            return
        longest = self._config.model.max_context
        seed = self._config.run.seed
        probes: tuple[tuple[str, Sequence[Sequence[int]]], ...] = (
            ("contexts of the newest batch", real_prompts(batch, max_context=longest)),
            ("prompts of the run's own questions", self._head.first_prompts),
            (
                "prompts of random token ids",
                random_prompts(self._vocabulary, seed=seed, max_context=longest),
            ),
        )
        origin, prompts = next((name, found) for name, found in probes if found)
        for parity in self._verifier.run(
            prompts, self._head.publisher, version=version, origin=origin
        ):
            self.totals.add_parity(parity)

    # ---- held-out evaluation during training -------------------------------------------------

    def _is_last(self, version: int) -> bool:
        return version == self._config.run.steps

    def _start_evaluation(self, version: int) -> None:
        """Begin a short evaluation of ``version``; nothing is published until it is in."""
        every = self._config.evaluation.during_every
        if self._head is None or not self._head.heldout or not every:
            return
        if version % every == 0 and not self._is_last(version):
            self._evaluate(self._head)

    def _resume_evaluation(self, version: int) -> None:
        """Begin the evaluation that the journal ends in, or that was due after its last batch."""
        head = self._head
        is_under_way = head is not None and head.replay is not None and head.replay.is_evaluating
        if head is not None and head.heldout and is_under_way and not self._is_last(version):
            self._evaluate(head)
        else:
            self._start_evaluation(version)

    def _evaluate(self, head: Head) -> None:
        head.publisher.wait()
        head.intake.begin_evaluation(head.heldout, temperature=head.heldout_temperature)
        self._evaluating = True

    def _finish_evaluation(self) -> None:
        if self._head is None or not self._evaluating:
            return
        timeout_s = self._config.learner.batch_timeout_s
        finished = self._head.intake.finish_evaluation(timeout_s=timeout_s)
        self._evaluating = False
        self._heldout = success_by(finished, self._head.family_of)

    # ---- records -----------------------------------------------------------------------------

    def _record(
        self,
        head: Head,
        step: int,
        batch: Sequence[Trajectory],
        metrics: StepMetrics,
        timings: StepTimings,
    ) -> StepRecord:
        self.totals.add_step(metrics, timings)
        self.totals.paused_here_s = head.publisher.total_paused_s
        record = step_record(
            step + 1,
            batch,
            metrics,
            timings,
            counters=head.intake.counters(),
            family_of=head.family_of,
            heldout=self._heldout,
        )
        head.batches.write(record.step, batch)
        for writer in head.writers:
            writer.write(record)
        self._heldout = {}
        log.info(
            "step done step=%d reward=%.3f exact_match=%.3f staleness_max=%d wait=%.2f train=%.2f",
            record.step, record.reward, record.exact_match, metrics.batch.staleness_max,
            timings.wait_s, timings.train_s,
        )  # fmt: skip
        return record

    def _check_gradients(self, metrics: StepMetrics) -> None:
        update = metrics.update
        broken = update is not None and not update.applied
        self._skipped_in_row = self._skipped_in_row + 1 if broken else 0
        if self._skipped_in_row >= SKIPPED_STEPS:
            raise LZeroError(
                f"the gradient was not finite in {SKIPPED_STEPS} steps in a row (last norm "
                f"{update.gradient_norm if update else 0}); lower learner.learning_rate or "
                "resume from an earlier checkpoint"
            )
