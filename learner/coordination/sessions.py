"""The sessions of actors that the coordinator knows, and how much each may hold.

With a thousand of them it must not be looked through all of them whenever a message comes: what the
clock and rotations ask is answered from a bound that holds for all, and who may get the next lease
from a heap.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from common.waits.records import WaitReport
from common.wire.session import Heartbeat, Hello

_QUIET_SHARE = 1 / 3
"""Of the silence after which a session is dead: longer silent, it gets no more leases."""
_OUT_OF_DATE = 8
"""Offers for each session beyond which those that are out of date are thrown away."""


@dataclass(slots=True)
class Session:
    """One actor process.

    ``sent`` is the serial of the last lease sent to it, from 1; ``told`` is the number of the
    rotation that was sent to it last, as far as it has not named an earlier one since; ``share`` is
    the part of its credit in use under which it is offered leases, None where it is not.
    ``report`` is what it said last that it waits for.
    """

    actor_id: str
    credit: int
    last_heard: float
    sent: int = 0
    told: int = 0
    share: float | None = None
    report: WaitReport = field(default_factory=WaitReport)


class Sessions(dict[str, Session]):
    """Sessions by identity. Pure: the time is an argument, in seconds."""

    def __init__(self, held: Callable[[str], int]) -> None:
        """Nobody is known; ``held`` says how many leases the session of an identity holds."""
        super().__init__()
        self._held = held
        self._offered: list[tuple[float, str]] = []
        """A heap; what does not agree with the session's ``share`` is out of date."""
        self._oldest = inf
        """Nobody was heard last before this."""
        self._told = 0
        """Nobody was told less than the rotation of this number."""

    def join(self, hello: Hello, now: float) -> bool:
        """A session says hello; returns whether it is new. Said again, nothing changes."""
        known = self.get(hello.identity)
        if known is not None:
            self.heard(hello.identity, now)
            return False
        self[hello.identity] = Session(hello.actor_id, hello.credit, now)
        self._oldest, self._told = min(self._oldest, now), 0
        self.offer(hello.identity)
        return True

    def heard(self, identity: str, now: float) -> bool:
        """A session said something; returns whether it is known."""
        session = self.get(identity)
        if session is None:
            return False
        session.last_heard = now
        self._oldest = min(self._oldest, now)
        if session.share is None:
            self.offer(identity)
        return True

    def retire(self, identity: str) -> None:
        """A session gets no more leases; it keeps those that it has."""
        self[identity].credit = 0
        self.offer(identity)

    @property
    def credit(self) -> int:
        """Leases that all of them together could hold."""
        return sum(session.credit for session in self.values())

    def silent(self, now: float, silence_s: float) -> list[tuple[str, float]]:
        """Who has said nothing for longer than ``silence_s``, and for how long, in seconds."""
        if now - self._oldest <= silence_s:
            return []
        self._oldest = min((session.last_heard for session in self.values()), default=inf)
        return [
            (identity, now - session.last_heard)
            for identity, session in self.items()
            if now - session.last_heard > silence_s
        ]

    def tell(self, rotation: int) -> list[str]:
        """Who has to be sent the rotation of that number; each once."""
        if self._told >= rotation:
            return []
        self._told = rotation
        untold = [identity for identity, session in self.items() if session.told < rotation]
        for identity in untold:
            self[identity].told = rotation
        return untold

    def beat(self, identity: str, beat: Heartbeat) -> None:
        """A session names the newest rotation that reached it; what was lost is sent again.

        What it waits for is kept.
        """
        session = self[identity]
        session.told = min(beat.rotation, session.told)
        self._told = min(self._told, session.told)
        session.report = beat.report

    def least_busy(self, *, now: float, silence_s: float) -> str | None:
        """Who of those that speak has the smallest share of its credit in use; else None."""
        while self._offered:
            share, identity = self._offered[0]
            session = self.get(identity)
            is_current = session is not None and session.share == share
            if session is not None and is_current:
                if now - session.last_heard <= silence_s * _QUIET_SHARE:
                    return identity
                session.share = None  # until it is heard
            heapq.heappop(self._offered)
        return None

    def offer(self, identity: str) -> None:
        """What a session holds, or may hold, is another number now."""
        session = self.get(identity)
        if session is None:
            return
        held = self._held(identity)
        session.share = held / session.credit if held < session.credit else None
        if session.share is None:
            return
        heapq.heappush(self._offered, (session.share, identity))
        if len(self._offered) > _OUT_OF_DATE * len(self) + _OUT_OF_DATE:
            self._offered = [(s.share, name) for name, s in self.items() if s.share is not None]
            heapq.heapify(self._offered)
