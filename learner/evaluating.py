"""Held-out questions while training: when they are asked, and what came of them. Rank 0 only.

consumes   versions that the policy servers sample with; trajectories of held-out tasks
produces   success by family for the record of a step, a score for the checkpoint
waits for  the last trajectory of a round: at the end of the run; with ``evaluation.during_pinned``
           before the next version is published
unblocked by  actors; a request to stop, which leaves the round to whoever goes on; the return of
              lost servers, which the caller has to compare

A round is asked from a version on, beside training, and ends in whatever step its last trajectory
comes. Each of its episodes says which versions sampled it; what came of it says between which
versions all of them were.
"""

import logging
from collections.abc import Callable, Mapping
from statistics import fmean

from common.config import Config
from common.errors import LZeroError
from learner.coordination.heldout_round import HeldoutRound
from learner.head import Head
from learner.record import NOT_ASKED, HeldoutPoint, success_by, versions_of

log = logging.getLogger(__name__)


class DuringTraining:
    """The evaluations of a run; at most one is under way."""

    def __init__(self, config: Config, head: Head, *, asked_to_stop: Callable[[], bool]) -> None:
        """Nothing is asked yet."""
        self._head = head
        self._every = config.evaluation.during_every
        self._pinned = config.evaluation.during_pinned
        self._steps = config.run.steps
        self._timeout_s = config.learner.batch_timeout_s
        self._asked_to_stop = asked_to_stop
        self._version: int | None = None
        """The first that is being asked."""
        self._point = NOT_ASKED

    def begin_if_due(self, version: int) -> None:
        """Ask from ``version`` on if it is its turn, and the round before is over."""
        if not self._every or version % self._every:
            return
        self._look()
        if self._version is None:
            self._begin(version)
        else:
            log.info("evaluation left out version=%d asking=%d", version, self._version)

    def go_on(self, version: int, *, is_unfinished: bool) -> None:
        """Ask from ``version`` on, which a run goes on with: if one before was not done, too."""
        if is_unfinished:
            self._begin(version)
        else:
            self.begin_if_due(version)

    def _begin(self, version: int) -> None:
        """Ask, unless it is the last version: that is evaluated after training."""
        head = self._head
        if not head.heldout or version == self._steps:
            return
        head.intake.begin_evaluation(
            head.heldout,
            temperature=head.heldout_temperature,
            version=version,
            pinned=self._pinned,
        )
        self._version = version

    def finish_pinned(self) -> None:
        """Wait for a round that may see one version alone, or until asked to stop.

        Servers that are back can only be compared at the next version: it ends under that.

        Raises:
            LZeroError: it took too long.
        """
        if self._pinned:
            self._wait(give_up=self._nobody_is_asked)

    def finish(self, *, give_up: Callable[[], bool]) -> bool:
        """Wait for the round under way, or until ``give_up`` says so or asked to stop.

        Returns:
            Whether none is under way any more. One that takes too long is left.
        """
        try:
            self._wait(give_up=give_up)
        except LZeroError as error:
            log.warning("the last evaluation is left: %s", error)
            self._version = None
        return self._version is None

    def _wait(self, *, give_up: Callable[[], bool]) -> None:
        if self._version is None:
            return
        done = self._head.intake.finish_evaluation(
            timeout_s=self._timeout_s, give_up=lambda: self._asked_to_stop() or give_up()
        )
        if done is not None:
            self._take(done)
        elif self._asked_to_stop():
            self._version = None

    def _nobody_is_asked(self) -> bool:
        """Whether all servers that are there came back, and wait to be compared."""
        with self._head.membership.roster() as roster:
            return not roster.rotation.asked and bool(roster.unproven())

    def look_up(self) -> None:
        """What the journal has of a round that was over before the batch after the one played."""
        if self._head.replay is not None and (done := self._head.replay.rest()) is not None:
            self._take(done)

    def _take(self, done: HeldoutRound) -> None:
        self._version = None
        success = success_by(done.finished, self._head.family_of)
        if not success:
            return
        versions = versions_of(done.finished) or {"oldest": done.version, "newest": done.version}
        self._point = HeldoutPoint(success, versions)
        self._head.scored(done.version, fmean(success.values()))
        log.info("evaluation done version=%d %s", done.version, _describe(versions))

    def point(self) -> HeldoutPoint:
        """What came of the round that ended since the last call, if one did."""
        if self._point is NOT_ASKED:
            self._look()
        point, self._point = self._point, NOT_ASKED
        return point

    def _look(self) -> None:
        """Take the round that is asked, if it is over by now."""
        if self._version is not None and (done := self._head.intake.take_evaluation()) is not None:
            self._take(done)


def _describe(versions: Mapping[str, int]) -> str:
    return " ".join(f"{name}={version}" for name, version in versions.items())
