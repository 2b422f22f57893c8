"""The sessions of actors that the coordinator knows, and how much each may hold."""

from collections.abc import Callable
from dataclasses import dataclass

from common.wire.session import Hello

_QUIET_SHARE = 1 / 3
"""Of the silence after which a session is dead: longer silent, it gets no more leases."""


@dataclass(slots=True)
class Session:
    """One actor process.

    ``sent`` is the serial of the last lease sent to it, from 1; ``told`` is the number of the
    rotation that was sent to it last, as far as it has not named an earlier one since.
    """

    actor_id: str
    credit: int
    last_heard: float
    sent: int = 0
    told: int = 0


class Sessions(dict[str, Session]):
    """Sessions by identity. Pure: the time is an argument, in seconds."""

    def join(self, hello: Hello, now: float) -> bool:
        """A session says hello; returns whether it is new. Said again, nothing changes."""
        known = self.get(hello.identity)
        if known is not None:
            known.last_heard = now
            return False
        self[hello.identity] = Session(hello.actor_id, hello.credit, now)
        return True

    def heard(self, identity: str, now: float) -> bool:
        """A session said something; returns whether it is known."""
        session = self.get(identity)
        if session is not None:
            session.last_heard = now
        return session is not None

    def retire(self, identity: str) -> None:
        """A session gets no more leases; it keeps those that it has."""
        self[identity].credit = 0

    @property
    def credit(self) -> int:
        """Leases that all of them together could hold."""
        return sum(session.credit for session in self.values())

    def silent(self, now: float, silence_s: float) -> list[tuple[str, float]]:
        """Who has said nothing for longer than ``silence_s``, and for how long, in seconds."""
        return [
            (identity, now - session.last_heard)
            for identity, session in self.items()
            if now - session.last_heard > silence_s
        ]

    def tell(self, rotation: int) -> list[str]:
        """Who has to be sent the rotation of that number; each once."""
        untold = [identity for identity, session in self.items() if session.told < rotation]
        for identity in untold:
            self[identity].told = rotation
        return untold

    def knows(self, identity: str, rotation: int) -> None:
        """A session names the newest rotation that reached it; what was lost is sent again."""
        session = self[identity]
        session.told = min(rotation, session.told)

    def least_busy(self, held: Callable[[str], int], *, now: float, silence_s: float) -> str | None:
        """Who of those that speak has the smallest share of its credit in use; else None."""
        free = [
            (held(identity) / session.credit, identity)
            for identity, session in self.items()
            if held(identity) < session.credit
            and now - session.last_heard <= silence_s * _QUIET_SHARE
        ]
        return min(free, default=(0.0, None))[1]
