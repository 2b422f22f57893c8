"""The training loop: the order of things, and nothing else.

consumes   batches of complete fresh groups (``learner.coordination.intake``)
produces   weight versions (``learner.serving``), checkpoints (``learner.saving``), one record of
           metrics a step (``learner.reporting``)
waits for  a full batch; before a publish, for the publish before; at the end, for an evaluation
           under way
unblocked by  actors (batches, evaluations) and policy servers (publishes)

The learner trains step v on weights of version v and publishes version v + 1 beside the next step.
Steps that the journal holds are trained first, on the batches they had; nothing is published and
nothing is handed out before they are done.

A request to stop is heard between the parts of a step, on all ranks at the same place: while the
journal is played, before the first publish, after a step, before its publish; by rank 0 also while
it waits for a batch or an evaluation. What there is is saved then, and the run says that it goes
on; only the last step is always finished. An evaluation under way is left, and begun again by
whoever goes on.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from common.config import Config
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.records import Trajectory
from learner.checkpoints.state import Progress
from learner.engine.agreement import broadcast_number, largest_numbers
from learner.evaluating import DuringTraining
from learner.head import Head
from learner.profiling import StepProfiler
from learner.reporting import StepReports
from learner.saving import Agreed, Saving
from learner.serving import ServedWeights
from learner.step.train_step import TrainStep
from learner.totals import Totals, pack_ledger
from learner.weights.verifier import ParityVerifier

log = logging.getLogger(__name__)

DRAIN_SHARE = 0.5
"""Part of what is left of ``run.grace_s`` that actors get; the rest is for the save."""
LEAVE_S = 5.0
"""An actor's goodbye, once it has stopped what it does: acks that are outstanding."""


class TrainingLoop:
    """Runs the steps of a training run; one object on every rank, ``head`` on rank 0 only."""

    def __init__(
        self,
        config: Config,
        *,
        model: nn.Module,
        vocabulary: int,
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
        self._train_step = train_step
        self._saving = saving
        self._head = head
        self._first_step = first_step
        self._first_live_step = first_step
        """The first step whose batch is not in the journal."""
        self._profiler = profiler
        self._served = ServedWeights(
            config, model=model, vocabulary=vocabulary, verifier=verifier, head=head,
            totals=totals, stop=saving.stop,
        )  # fmt: skip
        self._reports = None if head is None else StepReports(config, head, totals)
        self._evaluations: DuringTraining | None = None
        if head is not None:
            self._evaluations = DuringTraining(config, head, asked_to_stop=self._is_asked_to_stop)
        self.totals = totals

    def run(self) -> bool:
        """Train to the last step, or save and come back when asked to stop.

        Returns:
            Whether the last step was done, and the policy servers have its weights.

        Raises:
            LZeroError: a batch did not come, servers and learner disagree, gradients stay broken.
        """
        if not self._replay() or not self._go_live():
            return False
        for step in range(self._first_live_step, self._config.run.steps):
            if not self._step(step):
                return False
        return self._end()

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

    def _go_live(self) -> bool:
        """Give the servers the weights that there are now, then tasks to the actors; see ``_step``.

        Nobody samples with other weights than these.
        """
        live = self._first_live_step
        if self._saving.all_stop(here=self._is_asked_to_stop()):
            self._save_and_stop(live)
            return False
        self._served.begin(live)
        self.totals.started_at = self.totals.started_at or time.monotonic()
        if self._head is not None and self._evaluations is not None:
            is_unfinished = self._head.intake.go_live()
            if live > 0:
                self._evaluations.go_on(live, is_unfinished=is_unfinished)
        return True

    def _step(self, step: int) -> bool:
        """Do one step; False if the run was asked to stop, and what there is has been saved."""
        began = time.monotonic()
        batch, is_stopped = self._await_batch(step)
        if is_stopped:
            self._save_and_stop(step)
            return False
        taken = time.monotonic()
        with self._profiled(step + 1), waiting(WaitKind.STEP, detail=str(step + 1)):
            metrics = self._train_step.run(batch, version=step)
        trained = time.monotonic()
        version = step + 1
        agreed = self._saving.agree(version, last=self._is_last(version))
        is_stopped = self._follow_up(version, batch, agreed)
        if self._reports and self._evaluations and metrics is not None and batch is not None:
            self._reports.write(
                version, batch, metrics, waited_s=taken - began, trained_s=trained - taken,
                heldout=self._evaluations.point(),
            )  # fmt: skip
        if is_stopped:
            self._save_and_stop(version)
            return False
        if agreed.save:
            self._saving.save(self._progress(version))
        return True

    def _follow_up(self, version: int, batch: Sequence[Trajectory] | None, agreed: Agreed) -> bool:
        """What comes after the step that made ``version``, now or when it was done first.

        Returns:
            Whether the run stops after it; after the last step it ends anyway.
        """
        is_last = self._is_last(version)
        is_stopped = agreed.stop
        if version <= self._first_live_step:
            if self._evaluations is not None:
                self._evaluations.look_up()
        elif is_last or not agreed.stop:
            is_stopped = self._hand_on(version, batch, is_last=is_last)
        return is_stopped and not is_last

    def _hand_on(self, version: int, batch: Sequence[Trajectory] | None, *, is_last: bool) -> bool:
        """Give new weights to the servers, and ask the held-out questions where they are due.

        A publish waits for a pinned evaluation of the weights before, and the end of the run for
        any. Who is asked to stop meanwhile publishes the last weights only.

        Returns:
            Whether some rank was asked to stop before the publish.
        """
        if self._evaluations is not None:
            self._evaluations.finish_pinned()
        is_stopped = self._saving.all_stop(here=self._is_asked_to_stop())
        if is_last or not is_stopped:
            self._served.update(version, batch, may_wait=not is_stopped)
            if self._evaluations is not None:
                self._evaluations.begin_if_due(version)
        if is_last:
            self._await_evaluation(version)
        return is_stopped

    def _await_evaluation(self, version: int) -> None:
        """Wait for an evaluation under way, or until asked to stop; all ranks.

        ``version`` is the last: servers that come back have it, and are compared meanwhile.
        """
        evaluations = self._evaluations
        while True:
            is_waiting = evaluations is not None and not evaluations.finish(
                give_up=lambda: self._served.are_returned(version)
            )
            if not any(largest_numbers(int(is_waiting))):
                return
            self._served.compare_returned(version)

    def _end(self) -> bool:
        """Wait until the servers have the last weights; False if they went, asked to stop."""
        self._served.wait()
        self.totals.finished_at = time.monotonic()
        if self._head is not None:
            self.totals.paused_here_s = self._head.publisher.total_paused_s
        return not self._saving.all_stop(here=self._served.are_behind)

    def _save_and_stop(self, version: int) -> None:
        """Let the actors finish or hand back what they hold, then save; within the grace."""
        if self._head is not None:
            drain_s = self._saving.stop.left_s(self._config.run.grace_s) * DRAIN_SHARE
            self._head.intake.drain(
                "the run was asked to stop",
                finish_s=max(0.0, drain_s - LEAVE_S),
                timeout_s=drain_s,
            )
        if version:  # before the first step the journal has all that there is
            self._saving.save(self._progress(version))
        self._saving.settle()

    def _progress(self, version: int) -> Progress:
        return Progress(step=version, weight_version=version, ledger=self._ledger(version))

    def _ledger(self, step: int) -> bytes:
        if self._head is None:
            return b""
        self._head.intake.forget_before(self._head.oldest_checkpoint())
        return pack_ledger(self._head.intake.ledger(step=step), self.totals)

    def _profiled(self, number: int) -> AbstractContextManager[None]:
        return nullcontext() if self._profiler is None else self._profiler.step(number)

    def _await_batch(self, step: int) -> tuple[list[Trajectory] | None, bool]:
        """The batch of a step, on rank 0, and whether all stop instead.

        Servers that come back with the newest weights are compared meanwhile, by all ranks.
        """
        while True:
            batch = self._take_batch(step)
            is_waiting = self._head is not None and batch is None
            stops = is_waiting and self._is_asked_to_stop()
            stop, compare = largest_numbers(int(stops), int(is_waiting))
            if stop or not compare:
                return batch, bool(stop)
            self._served.compare_returned(step)

    def _take_batch(self, step: int) -> list[Trajectory] | None:
        if self._head is None:
            return None
        if self._head.replay is not None and step < self._first_live_step:
            return self._head.replay.batch(step)
        return self._head.intake.take_batch(
            learner_version=step,
            timeout_s=self._config.learner.batch_timeout_s,
            give_up=lambda: self._is_asked_to_stop() or self._served.are_returned(step),
        )

    def _is_asked_to_stop(self) -> bool:
        return self._saving.stop.asked

    def _is_last(self, version: int) -> bool:
        return version == self._config.run.steps
