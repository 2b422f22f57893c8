"""A policy server as the publisher works with it: it is updated, and looked after."""

import logging
import threading
import time
from dataclasses import dataclass

from common.errors import PolicyServerError
from learner.coordination.membership import Membership
from learner.coordination.roster import LiveServer, Standing
from learner.weights.channel import StagingChannel
from learner.weights.control import ServerControl

log = logging.getLogger(__name__)

_NO_LIFE = -1
"""Of who has left: what is told of it changes nothing."""
TORN = "torn"
"""Version label of a server whose update failed half-way; clients refuse its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Seconds that one update took for sending, and for the pause."""

    seconds_staging: float = 0.0
    seconds_paused: float = 0.0


class UpdatedServer:
    """Updates one server; at most one update at a time, a second caller waits for the first.

    How the server stands is in the roster. An update never raises: whatever goes wrong is told
    there.
    """

    def __init__(
        self,
        server: LiveServer,
        membership: Membership,
        channel: StagingChannel,
        *,
        stage_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        """A server of the roster, until it leaves or is elsewhere."""
        self.name, self.address, self.url = server.name, server.address, server.url
        self._membership = membership
        self._control = ServerControl(self.url, timeout_s=request_timeout_s)
        self._channel = channel
        self._stage_timeout_s = stage_timeout_s
        self._workers = 0
        self._updating = threading.Lock()

    def is_sound(self) -> bool:
        """Whether it has the newest weights, and itself says so. Holds nothing up while it waits.

        One that does not answer is in doubt from then on.
        """
        seen = self._seen()
        if seen.version is None:
            return False
        try:
            label = self._control.version()
        except PolicyServerError as error:
            self._doubt(seen, error)
            return self._seen().version is not None
        if label != str(seen.version):
            return False
        with self._membership.roster() as roster:
            roster.answered(seen.name, seen.life)
            return roster.standing(seen.name) is not Standing.BEHIND

    def update(self, version: int) -> Update:
        """Stage ``version``, swap it in, and see that it arrived.

        Args:
            version: the newest that the channel was offered when this was called.
        """
        with self._updating:
            try:
                return self._update(version)
            except Exception as error:
                expected = isinstance(error, PolicyServerError)
                if not expected:
                    log.exception("updating a policy server failed server=%s", self.url)
                self._fail(str(error) if expected else repr(error))
                return Update()

    @property
    def belongs(self) -> bool:
        """Whether the roster knows it, where it is."""
        return self._seen().life != _NO_LIFE

    def _seen(self) -> LiveServer:
        with self._membership.roster() as roster:
            for server in roster.servers:
                if (server.name, server.address) == (self.name, self.address):
                    return server
        return LiveServer(name=self.name, address=self.address, life=_NO_LIFE, version=None)

    def _doubt(self, seen: LiveServer, error: PolicyServerError) -> None:
        """It gave no answer; where nothing listens any more, there is no doubt."""
        if isinstance(error.__cause__, TimeoutError):
            with self._membership.roster() as roster:
                roster.doubted(seen.name, seen.life, str(error), time.monotonic())
        else:
            self._membership.fail(seen, str(error))
            self._channel.forget(self.name)

    def _fail(self, reason: str) -> None:
        """Dead, until an update succeeds."""
        self._membership.fail(self._seen(), reason)
        self._channel.forget(self.name)

    def _update(self, version: int) -> Update:
        label, held = self._control.version(), self._seen().version
        if held is not None:
            if label == str(held) and held >= version:
                return Update()  # a watcher may have waited here for a newer one to be published
            if label != str(held):
                self._fail(f"it reports weight version '{label}', it was given {held}")
        began, life = time.monotonic(), self._seen().life
        self._stage(version)
        staged = time.monotonic()
        paused = self._swap(version)
        with self._membership.roster() as roster:
            roster.updated(self.name, life, version)
        return Update(seconds_staging=staged - began, seconds_paused=paused)

    def _stage(self, version: int) -> None:
        """Have all workers hold ``version``; first make their acquaintance, if need be."""
        if self._seen().version is None:
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
