"""Held-out questions while training: when they are asked, and what came of them. Rank 0 only.

consumes   versions that the policy servers sample with; trajectories of held-out tasks
produces   success by family for the record of the next step, a score for the checkpoint
waits for  the last trajectory of an evaluation, before the next version is published
unblocked by  actors; a request to stop, which leaves the evaluation to whoever goes on; the return
              of lost servers, which can only be compared at the next version: it ends under that
"""

from collections.abc import Callable, Sequence
from statistics import fmean

from common.config import Config
from common.wire.records import Trajectory
from learner.head import Head
from learner.record import success_by


class DuringTraining:
    """The evaluations of a run; at most one is under way, of one weight version."""

    def __init__(self, config: Config, head: Head, *, asked_to_stop: Callable[[], bool]) -> None:
        """Nothing is asked yet."""
        self._head = head
        self._every = config.evaluation.during_every
        self._steps = config.run.steps
        self._timeout_s = config.learner.batch_timeout_s
        self._asked_to_stop = asked_to_stop
        self._version: int | None = None
        """Of the weights that are being asked."""
        self._success: dict[str, float] = {}

    def begin_if_due(self, version: int) -> None:
        """Ask ``version`` if it is its turn; it must be the last one that was submitted."""
        if self._version is None and self._every and version % self._every == 0:
            self._begin(version)

    def go_on(self, version: int, *, is_unfinished: bool) -> None:
        """Ask ``version``, which a run goes on with: it is its turn, or one before was not done."""
        if is_unfinished:
            self._begin(version)
        else:
            self.begin_if_due(version)

    def _begin(self, version: int) -> None:
        """Ask, unless it is the last version: that is evaluated after training."""
        head = self._head
        if not head.heldout or version == self._steps:
            return
        head.publisher.wait()
        head.intake.begin_evaluation(head.heldout, temperature=head.heldout_temperature)
        self._version = version

    def finish(self) -> None:
        """Wait for the evaluation under way, if there is one, or until asked to stop.

        Raises:
            LZeroError: it took too long.
        """
        version = self._version
        if version is None:
            return
        finished = self._head.intake.finish_evaluation(
            timeout_s=self._timeout_s,
            give_up=lambda: self._asked_to_stop() or self._nobody_is_asked(),
        )
        if finished is not None or self._asked_to_stop():
            self._version = None
        if finished is not None:
            self._take(version, finished)

    def _nobody_is_asked(self) -> bool:
        """Whether all servers that are there came back, and wait to be compared."""
        with self._head.membership.roster() as roster:
            return not roster.rotation.asked and bool(roster.unproven())

    def look_up(self, version: int) -> None:
        """What the journal has of an evaluation of ``version``, which trains the step played last.

        An evaluation is over before the version after its own is published, so between the batch
        for its version and the next one.
        """
        if self._head.replay is not None:
            self._take(version, self._head.replay.rest())

    def _take(self, version: int, finished: Sequence[Trajectory]) -> None:
        self._success = success_by(finished, self._head.family_of)
        if self._success:
            self._head.scored(version, fmean(self._success.values()))

    def success(self) -> dict[str, float]:
        """Share of right answers by family of what ended since the last call; empty if none did."""
        success, self._success = self._success, {}
        return success
