"""The roster as the learner's threads share it: one lock, and a word when the rotation changes.

The publisher, its watchers and the parity check change it; the intake tells actors the rotation.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.places import ServerPlace
from common.waits.records import WaitReport
from common.wire.hosting import Guest
from common.wire.session import Rotation
from learner.coordination.roster import LiveServer, Roster, Standing

log = logging.getLogger(__name__)

SUSPECT_S = 15.0
"""A server that answers nothing for this long is dead; until then it only gets no requests."""


class Membership:
    """Thread-safe. ``on_change`` is called, without the lock, when the rotation has changed."""

    def __init__(
        self,
        servers: Sequence[ServerPlace],
        *,
        guests: Sequence[Guest] = (),
        suspect_s: float = SUSPECT_S,
    ) -> None:
        """These servers belong to the run, and these may ask them beside the learner."""
        self._roster = Roster(suspect_s=suspect_s)
        self._lock = threading.Lock()
        self.on_change: Callable[[], None] = lambda: None
        self.guests: tuple[Guest, ...] = tuple(guests)
        """Who may ask servers, beside the learner; it is only ever replaced, by a longer one."""
        self._reports: dict[str, tuple[float, WaitReport]] = {}
        for place in servers:
            self._roster.join(place.name, place.address)

    def admit(self, guest: Guest) -> None:
        """Somebody may ask servers from now on; each is told by who looks after it."""
        with self._lock:
            self.guests = (*self.guests, guest)

    @property
    def rotation(self) -> Rotation:
        """Who may be asked now."""
        with self._lock:
            return self._roster.rotation

    def describe(self) -> str:
        """Which servers are not asked and why, for the end of a message."""
        with self.roster() as roster:
            causes = roster.causes.items()
            return "".join(f"; policy server {name}: {cause}" for name, cause in causes)

    def loads(self) -> str:
        """What each server had to do when it last said so, for a line of the log."""
        with self.roster() as roster:
            return ", ".join(
                f"{server.name}: {server.load.running} running, {server.load.waiting} waiting, "
                f"cache {server.load.cache_share:.0%}, {server.load.preemptions} preempted"
                for server in roster.servers
            )

    def loads_since(self, news: int) -> tuple[int, tuple[LiveServer, ...] | None]:
        """Who has said what it has to do, if that has changed since ``news``; and the news now."""
        with self._lock:
            now = self._roster.news_of_load
            return now, self._roster.reporting if now != news else None

    def reported(self, server: str, report: WaitReport) -> None:
        """A server says what it waits for."""
        with self._lock:
            self._reports[server] = time.monotonic(), report

    def reports(self) -> dict[str, tuple[float, WaitReport]]:
        """What each server that belongs to the run said last of that, and how long ago, seconds."""
        now = time.monotonic()
        with self._lock:
            known = {server.name for server in self._roster.servers}
            self._reports = {n: said for n, said in self._reports.items() if n in known}
            return {name: (now - at, report) for name, (at, report) in self._reports.items()}

    @contextmanager
    def roster(self) -> Iterator[Roster]:
        """The roster, to ask it or to tell it something; short, and nothing that waits inside."""
        with self._lock:
            before = self._roster.rotation
            yield self._roster
            after, causes = self._roster.rotation, self._roster.causes
        if after.number != before.number:
            _log(before, after, causes)
            self.on_change()

    def fail(self, server: LiveServer, cause: str) -> None:
        """A server did not do its work; it comes back by an update and a parity check."""
        with self.roster() as roster:
            was_dead = roster.standing(server.name) is Standing.DEAD
            is_over = roster.failed(server.name, server.life, cause)
        if is_over and not was_dead:
            log.warning("took server out of rotation server=%s reason=%s", server.name, cause)

    def tick(self) -> None:
        """Act on the clock."""
        with self.roster() as roster:
            for name in roster.tick(time.monotonic()):
                log.warning("server is dead server=%s", name)


def _log(before: Rotation, after: Rotation, causes: dict[str, str]) -> None:
    names = {one.server for one in after.asked}
    if names != {one.server for one in before.asked} or before.lost != after.lost:
        log.info(
            "rotation number=%d asked=%s%s", after.number, ",".join(sorted(names)) or "nobody",
            "".join(f"; {name}: {cause}" for name, cause in causes.items()),
        )  # fmt: skip
