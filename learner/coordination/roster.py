"""Which policy servers belong to the run, how each stands, and who may be asked.

Pure: no sockets, threads or clock; whoever updates, checks and watches servers tells what came of
it (``learner.weights``), times are arguments. A *life* of a server ends when it is found dead; it
may be the same process that lives on. What always holds, after any history of events
(tests/unit/test_roster.py plays random ones):

* *Rotation.* Who may be asked is CURRENT: it holds the newest published version or a later one, by
  an update that was completed in its present life, has passed a parity check in it, and is not in
  doubt.
* *Return.* From DEAD a server comes back only by a completed update and then a parity check. What
  is said of an earlier life, of an older version or of a stranger changes nothing.
* *Causes.* Who is not asked has a cause, in words.
* *Liveness.* No doubt lasts longer than ``suspect_s``: the server answers, or is dead.
* *News.* The rotation's number rises exactly when what it says changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from common.places import Address
from common.wire.hosting import ServerLoad
from common.wire.session import Asked, Rotation


class Standing(StrEnum):
    """How a policy server stands."""

    JOINING = "joining"
    """It is known, and lacks weights or its check."""
    CURRENT = "current"
    """It takes part."""
    BEHIND = "behind"
    """It has weights that were the newest once."""
    SUSPECT = "suspect"
    """It does not answer, for less long than it takes to be dead."""
    DEAD = "dead"
    """It takes no part, until it has begun again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveServer:
    """A server in its present life, for those who work with it and tell what came of it.

    ``load`` is what it said last of all that it has to do, of ``reports`` in this life.
    """

    name: str
    address: Address
    life: int
    version: int | None
    load: ServerLoad = field(default_factory=ServerLoad)
    reports: int = 0


@dataclass(kw_only=True, slots=True)
class _Known:
    """What is known of one server; ``cause`` is why it is not asked, empty when it may be."""

    name: str
    address: Address
    life: int
    version: int | None = None
    load: ServerLoad = field(default_factory=ServerLoad)
    reports: int = 0
    proven: bool = False
    dead: bool = False
    doubted_at: float | None = None
    cause: str = "it has not taken weights yet"

    def seen(self) -> LiveServer:
        return LiveServer(
            name=self.name,
            address=self.address,
            life=self.life,
            version=self.version,
            load=self.load,
            reports=self.reports,
        )


class Roster:
    """The policy servers of a run."""

    def __init__(self, *, suspect_s: float) -> None:
        """Nobody has joined; a server may be in doubt for ``suspect_s`` seconds."""
        self._suspect_s = suspect_s
        self._servers: dict[str, _Known] = {}
        self._newest: int | None = None
        self._lives = count()
        self.rotation = Rotation(number=0, asked=(), lost=())
        self.news_of_load = 0
        """Rises whenever ``reporting`` changes."""

    # ---- questions ---------------------------------------------------------------------------

    def standing(self, name: str) -> Standing:
        """How a server stands; a stranger is dead."""
        server = self._servers.get(name)
        if server is None or server.dead:
            return Standing.DEAD
        if server.doubted_at is not None:
            return Standing.SUSPECT
        if server.version is None or not server.proven:
            return Standing.JOINING
        is_newest = self._newest is not None and server.version >= self._newest
        return Standing.CURRENT if is_newest else Standing.BEHIND

    def server(self, name: str) -> LiveServer:
        """A server as it is now.

        Raises:
            KeyError: it does not belong to the run.
        """
        return self._servers[name].seen()

    @property
    def servers(self) -> tuple[LiveServer, ...]:
        """All of them."""
        return tuple(server.seen() for server in self._servers.values())

    @property
    def causes(self) -> dict[str, str]:
        """Why a server is not asked, in words, by its name; only of those that are not."""
        asked = {one.server for one in self.rotation.asked}
        return {n: self._cause(s) for n, s in self._servers.items() if n not in asked}

    def holding(self, version: int) -> tuple[LiveServer, ...]:
        """Who has taken ``version``, asked or not yet; nobody of whom there is doubt."""
        return tuple(
            server.seen()
            for name, server in self._servers.items()
            if server.version == version and self.standing(name) is not Standing.SUSPECT
        )

    @property
    def reporting(self) -> tuple[LiveServer, ...]:
        """Who has said in its present life what it has to do; nobody of whom there is doubt."""
        return tuple(
            server.seen()
            for server in self._servers.values()
            if server.reports and server.doubted_at is None
        )

    def to_update(self) -> tuple[LiveServer, ...]:
        """Who gets a new version: all that took the last and answer; where nobody did, all."""
        sound = [
            server.seen()
            for name, server in self._servers.items()
            if server.version is not None and self.standing(name) is not Standing.SUSPECT
        ]
        return tuple(sound) or self.servers

    def lacks_newest(self, name: str) -> bool:
        """Whether a server has weights that were the newest once, proven or not."""
        server = self._servers.get(name)
        held = None if server is None else server.version
        return held is not None and self._newest is not None and held < self._newest

    def unproven(self) -> tuple[LiveServer, ...]:
        """Who has the newest weights and only lacks its parity check."""
        return tuple(
            server.seen()
            for name, server in self._servers.items()
            if self.standing(name) is Standing.JOINING
            and server.version is not None
            and server.version == self._newest
        )

    # ---- events ------------------------------------------------------------------------------

    def join(self, name: str, address: Address) -> None:
        """A server belongs to the run from now on; said again, nothing changes.

        One that was elsewhere before begins anew.
        """
        known = self._servers.get(name)
        if known is None or known.address != address:
            self._servers[name] = _Known(name=name, address=address, life=next(self._lives))
            self._renew()

    def leave(self, name: str) -> None:
        """A server belongs to the run no longer."""
        self._servers.pop(name, None)
        self._renew()

    def published(self, version: int) -> None:
        """The publish of ``version`` is over: who has not taken it is behind."""
        self._newest = version if self._newest is None else max(version, self._newest)
        self._renew()

    def updated(self, name: str, life: int, version: int) -> bool:
        """A server completed an update that was begun in ``life``; whether that counts."""
        server = self._living(name, life)
        if server is None or (server.version is not None and server.version > version):
            return False
        server.version, server.dead, server.doubted_at = version, False, None
        server.cause = "" if server.proven else "it waits for its parity check"
        self._renew()
        return True

    def proved(self, name: str, life: int, version: int) -> bool:
        """A server agreed with the learner at ``version``; whether that counts."""
        server = self._living(name, life)
        if server is None or server.version is None or server.version < version:
            return False
        server.proven = True
        if server.doubted_at is None:
            server.cause = ""
        self._renew()
        return True

    def failed(self, name: str, life: int, cause: str) -> bool:
        """A server did not do its work: that life is over; whether it was not before."""
        server = self._living(name, life)
        if server is None:
            return False
        server.life = next(self._lives)
        server.version, server.proven, server.dead, server.doubted_at = None, False, True, None
        server.load, server.reports = ServerLoad(), 0
        server.cause = cause or "it failed"
        self._renew()
        return True

    def doubted(self, name: str, life: int, cause: str, now: float) -> None:
        """A server gave no answer, which may have passed by the next time it is asked."""
        server = self._living(name, life)
        if server is None or server.version is None:
            return
        if server.doubted_at is None:
            server.doubted_at = now
        server.cause = cause or "it did not answer"
        self._renew()

    def answered(self, name: str, life: int) -> None:
        """A server says that it samples with the version that it was given."""
        server = self._living(name, life)
        if server is None or server.doubted_at is None:
            return
        server.doubted_at = None
        server.cause = "" if server.proven else "it waits for its parity check"
        self._renew()

    def loaded(self, name: str, life: int, load: ServerLoad) -> None:
        """A server says what it has to do."""
        if (server := self._living(name, life)) is not None:
            server.load = load
            server.reports += 1
            self.news_of_load += 1

    def tick(self, now: float) -> Sequence[str]:
        """Act on the clock; the servers that were in doubt for too long, and are dead now."""
        over = [
            server
            for server in self._servers.values()
            if server.doubted_at is not None and now - server.doubted_at >= self._suspect_s
        ]
        for server in over:
            self.failed(server.name, server.life, f"for {self._suspect_s:.0f} s: {server.cause}")
        return [server.name for server in over]

    # ---- what follows ------------------------------------------------------------------------

    def _living(self, name: str, life: int) -> _Known | None:
        """The server, if it is in that life."""
        server = self._servers.get(name)
        return server if server is not None and server.life == life else None

    def _cause(self, server: _Known) -> str:
        if self.standing(server.name) is Standing.BEHIND:
            return f"it has weights of version {server.version}, {self._newest} is published"
        return server.cause or "nothing is published yet"

    def _renew(self) -> None:
        """The rotation as it is now; with a new number if it is another."""
        self.news_of_load += 1
        asked = tuple(
            Asked(server=name, address=server.address, version=server.version)
            for name, server in self._servers.items()
            if self.standing(name) is Standing.CURRENT and server.version is not None
        )
        lost = tuple(name for name, server in self._servers.items() if server.dead)
        before = self.rotation
        if (asked, lost) != (before.asked, before.lost):
            self.rotation = Rotation(number=before.number + 1, asked=asked, lost=lost)
