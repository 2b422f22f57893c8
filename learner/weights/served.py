"""A policy server as the publisher works with it: it is updated, and looked after."""

import logging
import threading
import time
from dataclasses import dataclass

from common.errors import PolicyServerError
from common.wire.sockets import Wire
from learner.coordination.membership import Membership
from learner.coordination.roster import LiveServer
from learner.weights.channel import StagingChannel
from learner.weights.control import ServerControl

log = logging.getLogger(__name__)

_NO_LIFE = -1
"""Of who has left: what is told of it changes nothing."""
_HOSTS = 1
"""Machines of a server, each of which receives weights once for all of its GPUs."""


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
        wire: Wire,
        *,
        stage_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        """A server of the roster, until it leaves or is elsewhere."""
        self.name, self.address = server.name, server.address
        self._membership = membership
        self._control = ServerControl(wire, self.name, self.address, timeout_s=request_timeout_s)
        self._channel = channel
        self._stage_timeout_s = stage_timeout_s
        self._updating = threading.Lock()
        self._introduced: tuple[int, int] = (_NO_LIFE, 0)
        """In which life it was told how many guests."""

    def is_sound(self) -> bool:
        """Whether it has the newest weights, and itself says so. Holds nothing up while it waits.

        One that does not answer is in doubt from then on.
        """
        seen = self._seen()
        if seen.version is None:
            return False
        try:
            state = self._control.state()
        except PolicyServerError as error:
            self._doubt(seen, error)
            return self._seen().version is not None
        if state.version != str(seen.version):
            return False
        self._membership.reported(seen.name, state.report)
        with self._membership.roster() as roster:
            roster.answered(seen.name, seen.life)
            roster.loaded(seen.name, seen.life, state.load)
            return not roster.lacks_newest(seen.name)

    def introduce(self) -> None:
        """Tell its host who has come since; who cannot be told now is told the next time."""
        try:
            if self._introduced != (self._seen().life, len(self._membership.guests)):
                self._introduce()
        except PolicyServerError as error:
            log.debug("guests not told server=%s reason=%s", self.name, error)

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
                    log.exception("updating a policy server failed server=%s", self.name)
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
        label, held = self._control.state().version, self._seen().version
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

    def _introduce(self) -> None:
        life, guests = self._seen().life, self._membership.guests
        if guests:
            self._control.admit(guests)
        self._introduced = life, len(guests)

    def _stage(self, version: int) -> None:
        """Have its host hold ``version``; first make its acquaintance, if need be."""
        if self._seen().version is None:
            self._channel.expect(self.name, _HOSTS)
            self._introduce()
            self._control.attach(self._channel.address)
        self._channel.wait_staged(
            self.name, workers=_HOSTS, version=version, timeout_s=self._stage_timeout_s
        )

    def _swap(self, version: int) -> float:
        """Pause, load, go on, verify; the seconds the server was paused."""
        paused = self._control.swap(version)
        label = self._control.state().version
        if label != str(version):
            raise PolicyServerError(
                f"policy server {self.name} reports version {label} after the update to version "
                f"{version}"
            )
        return paused
