"""Publishes weights beside training: one thread, one version at a time, in order.

consumes   full state dicts of the training loop
produces   acknowledged versions for the coordinator's admission
waits for  staging and swap on every policy server (``learner.weights.publisher``)
unblocked by  the policy servers
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

from torch import Tensor

from common.waits.catalogue import WaitKind
from common.waits.register import waiting

log = logging.getLogger(__name__)


class Published(Protocol):
    """What one publish reports."""

    @property
    def seconds_paused(self) -> float:
        """Longest pause of any policy server."""
        ...


class Publisher(Protocol):
    """Something that brings a weight version to the policy servers and waits for it."""

    def publish(self, version: int, state: Mapping[str, Tensor]) -> Published:
        """Publish and verify; raises PolicyServerError when no server took it."""
        ...


class BackgroundPublisher:
    """At most one publish under way; the training loop goes on meanwhile."""

    def __init__(self, publisher: Publisher, *, acknowledge: Callable[[int], None]) -> None:
        """``acknowledge`` is called with each version that the servers sample with."""
        self._publisher = publisher
        self._acknowledge = acknowledge
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._pending: Future[None] | None = None
        self._under_way = -1
        """Version of the publish submitted last."""
        self.last_publish_s = 0.0
        self.last_paused_s = 0.0
        self.total_paused_s = 0.0

    def __enter__(self) -> Self:
        """Nothing to do: the thread starts with the first publish."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the publish under way and stop the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, version: int, state: Mapping[str, Tensor]) -> None:
        """Publish ``state`` as ``version`` once the one before has been.

        ``state`` must not change afterwards. Raises what the publish before raised.
        """
        self.wait()
        self._under_way = version
        self._pending = self._pool.submit(self._publish, version, state)

    def wait(self) -> None:
        """Wait for the publish under way; raises what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with waiting(WaitKind.EARLIER_PUBLISH, str(self._under_way)):
                pending.result()

    def _publish(self, version: int, state: Mapping[str, Tensor]) -> None:
        started = time.monotonic()
        result = self._publisher.publish(version, state)
        self.last_publish_s = time.monotonic() - started
        self.last_paused_s = result.seconds_paused
        self.total_paused_s += result.seconds_paused
        self._acknowledge(version)
        log.info(
            "weights published version=%d seconds=%.3f paused=%.3f",
            version, self.last_publish_s, self.last_paused_s,
        )  # fmt: skip
