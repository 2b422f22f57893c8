"""The training loop: the order of things, and nothing else.

consumes   batches of complete fresh groups (``learner.coordination.intake``)
produces   weight versions, checkpoints (``learner.saving``), one record of metrics a step
waits for  a full batch; before a publish, for the publish before and a running evaluation
unblocked by  actors (batches, evaluations) and policy servers (publishes)

The learner trains step v on weights of version v and publishes version v + 1 beside the next step.
Steps that the journal holds are trained first, on the batches they had; nothing is published before
they are done.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import fmean

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
from learner.saving import Saving
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
DRAIN_SHARE = 0.5
"""Part of what is left of ``run.grace_s`` that actors get; the rest is for the save."""
LEAVE_S = 5.0
"""An actor's goodbye, once it has stopped what it does: acks that are outstanding."""
SKIPPED_STEPS = 5
"""Steps in a row with a gradient that is not finite after which the run stops."""


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
    scored: Callable[[int, float], None] = lambda step, score: None
    """Gets the share of held-out questions that the weights after a step answered, mean over
    families."""
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
        saving: Saving,
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
        self._saving = saving
        self._head = head
        self._first_step = first_step
        self._first_live_step = first_step
        """The first step whose batch is not in the journal."""
        self._profiler = profiler
        self._heldout: dict[str, float] = {}
        self._evaluated: int | None = None
        self._skipped_in_row = 0
        self._trends = Trends(steps=config.run.steps)
        self._recorded_s = totals.seconds
        self.totals = totals

    def run(self) -> bool:
        """Train to the last step, or save and come back when asked to stop.

        Returns:
            Whether the last step was done.

        Raises:
            LZeroError: a batch did not come, servers and learner disagree, gradients stay broken.
        """
        if not self._replay():
            return False
        live = self._first_live_step
        with self._servers_may_have_stopped():
            self._publish(live, wait=True)
        with self._servers_may_have_stopped():
            self._verify(live, [])
        if self._head is not None:
            self._head.intake.go_live()  # nobody samples with other weights than these
        self.totals.started_at = self.totals.started_at or time.monotonic()
        if live > self._first_step:
            self._resume_evaluation(live)
        for step in range(live, self._config.run.steps):
            if not self._step(step):
                return False
        if self._head is not None:
            with self._servers_may_have_stopped():
                self._head.publisher.wait()
            self.totals.finished_at = time.monotonic()
            self.totals.paused_here_s = self._head.publisher.total_paused_s
        return True

    def _replay(self) -> bool:
        """Train the steps of the journal again, on the batches that they had; see ``_step``."""
        replay = self._head.replay if self._head is not None else None
        batches = broadcast_number(replay.batches if replay is not None else 0)
        self._first_live_step += batches
        if batches:
            self.totals.started_at = time.monotonic()
            log.info("journal played steps=%d to=%d", batches, self._first_live_step)
        for step in range(self._first_step, self._first_live_step):
            if not self._step(step):
                return False
        if replay is not None:
            replay.rest()
        return True

    def _step(self, step: int) -> bool:
        """Do one step; False if the run was asked to stop, and what there is has been saved."""
        began = time.monotonic()
        batch = self._take_batch(step)
        if self._saving.all_stop(here=self._head is not None and batch is None):
            self._save_and_stop(step)
            return False
        waited = time.monotonic() - began
        with self._profiled(step + 1):
            metrics = self._train_step.run(batch, version=step)
        trained = time.monotonic()
        version = step + 1
        agreed = self._saving.agree(version, last=self._is_last(version))
        if step < self._first_live_step:
            self._look_up_evaluation()
        elif not agreed.stop:
            self._hand_on(version, batch)
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
        if agreed.stop and not self._is_last(version):
            self._save_and_stop(version)
            return False
        if agreed.save:
            self._saving.save(self._progress(version))
        return True

    def _hand_on(self, version: int, batch: Sequence[Trajectory] | None) -> None:
        """Give the new weights to the servers, and look at how good they are."""
        verify = self._is_verified(version)
        self._finish_evaluation()
        if self._saving.all_stop(here=self._is_asked_to_stop()):
            return
        with self._servers_may_have_stopped():
            self._publish(version, wait=verify)
        if verify:
            with self._servers_may_have_stopped():
                self._verify(version, batch or [])
        with self._servers_may_have_stopped():
            self._start_evaluation(version)

    @contextmanager
    def _servers_may_have_stopped(self) -> Iterator[None]:
        """Who signals every process of a run ends its servers, too; we save nevertheless."""
        try:
            yield
        except LZeroError as error:
            if not self._is_asked_to_stop():
                raise
            log.warning("while the run is asked to stop: %s", error)

    def _save_and_stop(self, version: int) -> None:
        """Let the actors finish or hand back what they hold, then save; within the grace."""
        if self._head is not None:
            drain_s = self._saving.stop.left_s(self._config.run.grace_s) * DRAIN_SHARE
            self._head.intake.drain(
                "the run was asked to stop",
                finish_s=max(0.0, drain_s - LEAVE_S),
                timeout_s=drain_s,
            )
        self._saving.save(self._progress(version))
        self._saving.settle()

    def _progress(self, version: int) -> Progress:
        return Progress(step=version, weight_version=version, ledger=self._ledger(version))

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
            learner_version=step,
            timeout_s=self._config.learner.batch_timeout_s,
            give_up=self._is_asked_to_stop,
        )

    def _is_asked_to_stop(self) -> bool:
        return self._saving.stop.asked

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
            self._evaluate(self._head, version)

    def _look_up_evaluation(self) -> None:
        """What the journal has of an evaluation that ended before its next batch."""
        if self._head is not None and self._head.replay is not None:
            self._heldout = success_by(self._head.replay.rest(), self._head.family_of)

    def _resume_evaluation(self, version: int) -> None:
        """Begin the evaluation that the journal ends in, or that was due after its last batch."""
        head = self._head
        is_under_way = head is not None and head.replay is not None and head.replay.is_evaluating
        if head is not None and head.heldout and is_under_way and not self._is_last(version):
            self._evaluate(head, version)
        else:
            self._start_evaluation(version)

    def _evaluate(self, head: Head, version: int) -> None:
        head.publisher.wait()
        head.intake.begin_evaluation(head.heldout, temperature=head.heldout_temperature)
        self._evaluated = version

    def _finish_evaluation(self) -> None:
        if self._head is None or self._evaluated is None:
            return
        timeout_s = self._config.learner.batch_timeout_s
        finished = self._head.intake.finish_evaluation(
            timeout_s=timeout_s, give_up=self._is_asked_to_stop
        )
        evaluated, self._evaluated = self._evaluated, None
        if finished is not None and evaluated is not None:
            self._heldout = success_by(finished, self._head.family_of)
            if self._heldout:
                self._head.scored(evaluated, fmean(self._heldout.values()))

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
                f"{update.gradient_norm if update else 0}); such updates are left out, so weights "
                "and checkpoints are as without them; lower learner.learning_rate and resume"
            )
