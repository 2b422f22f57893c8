"""New weights on their way to the policy servers, and whether servers and learner agree on them.

consumes   the weights after a step
produces   published versions, comparisons of log-probabilities
waits for  the publish before; where a version is compared, for its own
unblocked by  the policy servers, each of which has a deadline
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from common.config import Config
from common.errors import PolicyServerError
from common.stopping import StopRequest
from common.wire.records import Trajectory
from learner.head import Head
from learner.totals import Totals
from learner.weights.contents import weights_to_publish
from learner.weights.verifier import ParityVerifier, random_prompts, real_prompts

log = logging.getLogger(__name__)

VERIFIED_FIRST, VERIFY_EVERY = 5, 10
"""Updates after which server and learner log-probabilities are compared: the first, then each so
many."""


class ServedWeights:
    """One object on every rank; what the servers are asked, rank 0 asks."""

    def __init__(
        self,
        config: Config,
        *,
        model: nn.Module,
        vocabulary: int,
        verifier: ParityVerifier,
        head: Head | None,
        totals: Totals,
        stop: StopRequest,
    ) -> None:
        """Nothing is published yet; comparisons are counted in ``totals``."""
        self._config = config
        self._model = model
        self._vocabulary = vocabulary
        self._verifier = verifier
        self._head = head
        self._totals = totals
        self._stop = stop
        self._first = 0
        self.are_behind = False
        """Servers went while the run was asked to stop: they may lack the last version."""

    def begin(self, version: int) -> None:
        """Publish the weights that the run begins or goes on with, and compare them.

        Who goes on was compared with before: a server that is gone just now is once it is back.
        """
        self._first = version
        with self.may_have_stopped():
            self._publish(version, wait=True)
        with self.may_have_stopped():
            self._verify(version, [], required=version == 0)

    def are_returned(self, version: int) -> bool:
        """Whether some server that came back with ``version``, which is ours, waits to be compared.

        Rank 0 only.
        """
        if self._head is None:
            return False
        with self._head.membership.roster() as roster:
            return any(server.version == version for server in roster.unproven())

    def compare_returned(self, version: int) -> None:
        """Compare with all servers that have ``version``, which lets them into the rotation."""
        with self.may_have_stopped():
            self._verify(version, [])

    def update(
        self, version: int, batch: Sequence[Trajectory] | None, *, may_wait: bool = True
    ) -> None:
        """Publish the weights after a step on ``batch``; compare them where it is their turn.

        Raises:
            LZeroError: no server took them, or the ones before; servers and learner disagree.
        """
        is_compared = may_wait and self._is_compared(version)
        with self.may_have_stopped():
            self._publish(version, wait=is_compared)
        if is_compared:
            with self.may_have_stopped():
                self._verify(version, batch or [])

    def wait(self) -> None:
        """Wait for the publish under way."""
        if self._head is not None:
            with self.may_have_stopped():
                self._head.publisher.wait()

    @contextmanager
    def may_have_stopped(self) -> Iterator[None]:
        """Who signals every process of a run ends its servers, too: that is no failure then."""
        try:
            yield
        except PolicyServerError as error:
            if not self._stop.asked:
                raise
            self.are_behind = True
            log.warning("while the run is asked to stop: %s", error)

    def _publish(self, version: int, *, wait: bool) -> None:
        state = weights_to_publish(
            self._model,
            complete=version == self._first,
            dtype=getattr(torch, self._config.model.compute_dtype),
        )
        if self._head is None:
            return
        self._head.publisher.submit(version, state)
        if wait:
            self._head.publisher.wait()

    def _is_compared(self, version: int) -> bool:
        return version <= self._first + VERIFIED_FIRST or version % VERIFY_EVERY == 0

    def _verify(self, version: int, batch: Sequence[Trajectory], *, required: bool = False) -> None:
        """Compare with the servers on prompts of ``batch``, or where it has none on the first.

        Unless it is ``required``, the run goes on where no server answers: it is compared when it
        is back.
        """
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
        try:
            for parity in self._verifier.run(
                prompts, self._head.membership, self._head.wire, version=version, origin=origin
            ):
                self._totals.add_parity(parity)
        except PolicyServerError as error:
            if required:
                raise
            log.warning("%s; who comes back is compared then", error)
