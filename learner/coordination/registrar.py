"""What newcomers and the policy servers that joined say to the coordinator, and what they are told.

Who has the credential of the run asks to be let in, or that somebody leaves; a server that joined
says that it serves, again and again. Members that are to leave are told so here, actors too. No
thread and no socket of its own: whoever calls holds the lock.
"""

import logging
from collections.abc import Callable, Iterable

from common.places import JOIN
from common.telemetry.quiet_log import QuietLog
from common.wire.codec import Record
from common.wire.joining import Join, Listed, SendAway, SentAway, Serving
from common.wire.session import Drain, Leave, Refused
from learner.coordination.coordinator import Coordinator
from learner.coordination.membership import Membership
from learner.coordination.newcomers import Newcomers
from learner.coordination.roster import Standing

log = logging.getLogger(__name__)


class Registrar:
    """Who joins, which policy servers have joined, and who has been told to leave."""

    def __init__(
        self,
        newcomers: Newcomers,
        coordinator: Coordinator,
        membership: Membership | None,
        say: Callable[[bytes, Record], None],
    ) -> None:
        """``say`` sends a message to an identity; without ``membership`` no server joins."""
        self._newcomers = newcomers
        self._coordinator = coordinator
        self._membership = membership
        self._say = say
        self._quiet = QuietLog(log)
        self._servers: dict[str, bytes] = {}
        """Identities of the policy servers that have joined, by name."""
        self._sent_away: set[str] = set()
        """Sessions that know that they are to leave."""

    def hears(self, member: str) -> bool:
        """Whether what that member says is for us: it is no actor."""
        return self._newcomers.role(member) != "actor"

    def greeted(self, identity: str) -> None:
        """A session says hello: should it be to leave, it has to be told again."""
        self._sent_away.discard(identity)

    # ---- what comes --------------------------------------------------------------------------

    def read(self, identity: bytes, member: str, record: Record, drain: Drain | None) -> None:
        """Take in what ``member`` says; ``drain`` is what all are told, once the run ends."""
        if member == JOIN:
            self._newcomer(identity, record)
        elif isinstance(record, Serving) and self._membership is not None:
            farewell = drain or self._farewell(member)
            self._say(identity, farewell or self._list(identity, member, record, self._membership))
        elif isinstance(record, Leave):
            self._servers.pop(member, None)
            self._forget_server(member)
        else:
            self._no_use(member)

    def _newcomer(self, identity: bytes, record: Record) -> None:
        if isinstance(record, Join):
            self._say(identity, self._newcomers.admit(record))
        elif isinstance(record, SendAway):
            fault = self._newcomers.send_away(record.name, living=self._living())
            self._say(identity, Refused(reason=fault) if fault else self._parting(record.name))
        else:
            self._no_use(JOIN)

    def _no_use(self, member: str) -> None:
        self._quiet.warning("message of no use", "from=%s", member)

    def _parting(self, name: str) -> SentAway:
        """What becomes of a member that is to leave; a server gets no requests from now on."""
        held = [i for i, actor in self._coordinator.sessions.items() if actor == name]
        leases = sum(len(self._coordinator.held_by(identity)) for identity in held)
        if held:
            return SentAway(text=f"{name} leaves once it has finished its {leases} episodes")
        self._forget_server(name)
        if name in self._servers:
            return SentAway(text=f"{name} gets no more requests and leaves")
        if self._newcomers.role(name) == "policy-server" and self._newcomers.is_planned(name):
            return SentAway(text=f"{name} gets no more requests; its process ends with the run")
        return SentAway(text=f"{name} is not there now; should it come, it gets nothing to do")

    def _living(self) -> list[str]:
        """The policy servers that are there, asked or not, and not dead."""
        if self._membership is None:
            return []
        with self._membership.roster() as roster:
            names = (server.name for server in roster.servers)
            return [name for name in names if roster.standing(name) is not Standing.DEAD]

    def _farewell(self, name: str) -> Drain | None:
        """What a policy server is told that is to leave."""
        return self._dismissal() if name in self._newcomers.leaving else None

    def _list(self, identity: bytes, name: str, ready: Serving, membership: Membership) -> Listed:
        """A policy server can be asked: it belongs to the run."""
        self._servers[name] = identity
        with membership.roster() as roster:
            roster.join(name, ready.address)
            return Listed(standing=roster.standing(name), cause=roster.causes.get(name, ""))

    def _forget_server(self, name: str) -> None:
        """Nobody asks it any more; what it is at work on may still come."""
        if self._membership is not None:
            with self._membership.roster() as roster:
                roster.leave(name)

    # ---- what goes ---------------------------------------------------------------------------

    def send_away(self) -> None:
        """Tell sessions and servers that are to leave; each once, until it is heard again."""
        leaving = self._newcomers.leaving
        if not leaving:
            return
        for identity, actor in self._coordinator.sessions.items():
            if actor in leaving and identity not in self._sent_away:
                self._sent_away.add(identity)
                self._coordinator.retire(identity)
                self._say(identity.encode(), self._dismissal())
        self._dismiss([name for name in self._servers if name in leaving], self._dismissal())

    def close(self, drain: Drain) -> None:
        """The run ends: tell the servers that joined; each once, until it is heard again."""
        self._dismiss(list(self._servers), drain)

    def _dismiss(self, servers: Iterable[str], drain: Drain) -> None:
        for name in servers:
            self._say(self._servers.pop(name), drain)

    def _dismissal(self) -> Drain:
        """What a member is told that somebody wants to leave."""
        return Drain(reason="somebody wants it to leave", finish_s=self._newcomers.finish_s)
