"""A policy server as the publisher sees it: what it samples with, or why it is out of rotation."""

import logging
import threading
import time
from dataclasses import dataclass

from common.errors import PolicyServerError
from common.places import ServerPlace
from common.wire.server_http import server_url
from learner.weights.channel import StagingChannel
from learner.weights.control import ServerControl

log = logging.getLogger(__name__)

TORN = "torn"
"""Version label of a server whose update failed half-way; clients refuse its tokens."""

_TO_ENTER = "it has just taken the weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Seconds that one update took for sending, and for the pause."""

    seconds_staging: float = 0.0
    seconds_paused: float = 0.0


class UpdatedServer:
    """Updates one server; at most one update at a time, a second caller waits for the first.

    ``failure`` is empty exactly while the server is in rotation, and then ``version`` is what it
    acknowledged. An update never raises: whatever goes wrong becomes the ``failure``.
    """

    def __init__(
        self,
        place: ServerPlace,
        channel: StagingChannel,
        *,
        stage_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        """Out of rotation until the first update."""
        self.name = place.name
        self.url = server_url(place.address)
        self.version: int | None = None
        self.failure = "not attached yet"
        self._control = ServerControl(self.url, timeout_s=request_timeout_s)
        self._channel = channel
        self._stage_timeout_s = stage_timeout_s
        self._workers = 0
        self._updating = threading.Lock()

    def is_sound(self) -> bool:
        """Whether it is in rotation, and itself says so. Holds nothing up while it waits."""
        if self.failure:
            return False
        try:
            return self._control.version() == str(self.version)
        except PolicyServerError:
            return False

    def update(self, version: int, *, enter: bool) -> Update:
        """Stage ``version``, swap it in, and see that it arrived.

        Args:
            version: the newest that the channel was offered when this was called.
            enter: whether the server is in rotation afterwards; else ``enter`` is to be called.
        """
        with self._updating:
            if enter and self.enter(version):
                return Update()  # the watcher was faster
            try:
                return self._update(version, enter=enter)
            except Exception as error:
                expected = isinstance(error, PolicyServerError)
                if not expected:
                    log.exception("updating a policy server failed server=%s", self.url)
                self.fail(str(error) if expected else repr(error))
                return Update()

    def enter(self, version: int) -> bool:
        """Back into rotation, if the last update brought ``version`` there."""
        if self.version != version:
            return False
        self.failure = ""
        return True

    def fail(self, reason: str) -> None:
        """Out of rotation, until an update succeeds."""
        if not self.failure:
            log.warning("took server out of rotation server=%s reason=%s", self.url, reason)
        self.failure = reason
        self.version = None
        self._channel.forget(self.name)

    def _update(self, version: int, *, enter: bool) -> Update:
        label, held = self._control.version(), self.version
        if not self.failure and held is not None:
            if label == str(held) and held >= version:
                return Update()  # a watcher may have waited here for a newer one to be published
            if label != str(held):
                self.fail(f"it reports weight version '{label}', it was given {held}")
        began = time.monotonic()
        self._stage(version)
        staged = time.monotonic()
        paused = self._swap(version)
        self.version = version
        self.failure = "" if enter else _TO_ENTER
        return Update(seconds_staging=staged - began, seconds_paused=paused)

    def _stage(self, version: int) -> None:
        """Have all workers hold ``version``; first make their acquaintance, if need be."""
        if self.failure:
            self._workers = self._control.workers()
            self._channel.expect(self.name, self._workers)
            self._control.attach(self._channel.address)
        self._channel.wait_staged(
            self.name, workers=self._workers, version=version, timeout_s=self._stage_timeout_s
        )

    def _swap(self, version: int) -> float:
        """Pause, load, resume, verify; the seconds the server was paused."""
        began = time.monotonic()
        try:
            self._control.pause()
            self._control.swap(version)
        except BaseException:
            self._control.abandon(TORN)
            raise
        self._control.resume()
        paused = time.monotonic() - began
        label = self._control.version()
        if label != str(version):
            raise PolicyServerError(
                f"policy server {self.url} reports version {label} after the update to version "
                f"{version}"
            )
        return paused
