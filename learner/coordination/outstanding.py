"""What a batch or an evaluation waits for, as the coordinator's books say; pure, only read here.

The records are edges of the graph that ``lzero why`` follows: a batch lacks groups, a group its
members, each a lease at an actor; where nothing is out, what keeps it from being handed out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.records import Node, Waiting, WaitReport, cut
from learner.coordination.admission import Admission
from learner.coordination.buffer import GroupBuffer
from learner.coordination.credit import Credit
from learner.coordination.depth import Depth
from learner.coordination.evaluations import Evaluations
from learner.coordination.groups import Group
from learner.coordination.leases import DELIVERY_S, LeaseBook
from learner.coordination.sessions import Sessions

MOST_GROUPS = 8
MOST_LEASES = 64
"""Of a group, and of an evaluation; the oldest are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """What the coordinator keeps; its arguments."""

    groups: GroupBuffer
    evaluations: Evaluations
    leases: LeaseBook
    sessions: Sessions
    admission: Admission
    credit: Credit
    depth: Depth
    version: int
    lease_timeout_s: float
    is_somebody_asked: bool = True
    """Whether some policy server may be asked."""

    @property
    def unclaimed(self) -> list[str]:
        """Sessions of before a restart that hold leases and have not come back."""
        return [session for session in self.leases.sessions if session not in self.sessions]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorSeen:
    """A session: what it holds, said last, and how long ago, in seconds."""

    name: str
    leases: tuple[str, ...]
    credit: int
    heard_s: float
    report: WaitReport


def actors_seen(sessions: Sessions, leases: LeaseBook, now: float) -> list[ActorSeen]:
    """All sessions, the most silent first."""
    seen = [
        ActorSeen(
            name=session.actor_id,
            leases=leases.of(identity),
            credit=session.credit,
            heard_s=max(0.0, now - session.last_heard),
            report=session.report,
        )
        for identity, session in sessions.items()
    ]
    return sorted(seen, key=lambda actor: -actor.heard_s)


def describe(books: Books, *, dropped: str) -> str:
    """What a full batch waits for, in one line; ``dropped`` is what failed most, in words."""
    groups, out = books.groups, len(books.leases)
    held = {s.actor_id: books.leases.count(i) for i, s in books.sessions.items()}
    unclaimed = sum(map(books.leases.count, books.unclaimed))
    return (
        f"{_ready(groups)}, {len(groups.open_groups)} open, leases held {held or 'by no actor'}, "
        f"capacity {books.admission.capacity(books.version)} at depth {books.depth.batches:.3g}, "
        f"weight version acknowledged {books.version}"
        + (f", {unclaimed} leases not claimed since the restart" if unclaimed else "")
        + (f", {_borne(books)}" if books.credit.is_over(out) else "")
        + (", no room for more trajectories" if books.admission.is_full else "")
        + (f"; dropped so far: {dropped}" if dropped else "")
    )


def outstanding(books: Books, wanted: Node, now: float) -> list[Waiting]:
    """What ``wanted`` waits for."""
    if wanted.part is Part.EVALUATION:
        leases = [lease.lease_id for lease in books.leases.held_out()]
        return [*_leases(books, wanted, leases, now), *_handing_out(books, wanted, bool(leases))]
    return [*_groups(books, wanted, now)]


def _groups(books: Books, batch: Node, now: float) -> Iterator[Waiting]:
    groups = books.groups
    if len(groups.ready) >= groups.groups_per_batch:
        return
    lacking = sorted(groups.open_groups.values(), key=lambda group: group.number)
    for group in islice(lacking, MOST_GROUPS):
        node = Node(Part.GROUP, group.group_id)
        members = list(_members(books, node, group, now))
        oldest = max((wait.seconds for wait in members), default=0.0)
        yield Waiting(
            kind=WaitKind.LACKED_GROUP, who=batch, on=node, seconds=oldest, detail=_ready(groups)
        )
        yield from members
    if not lacking:
        yield from _handing_out(books, batch, False)


def _members(books: Books, node: Node, group: Group, now: float) -> Iterator[Waiting]:
    yield from _leases(books, node, list(group.leased), now)
    if group.waiting:
        yield from _handing_out(books, node, bool(group.leased))


def _leases(books: Books, who: Node, ids: Sequence[str], now: float) -> Iterator[Waiting]:
    for lease_id in ids[:MOST_LEASES]:
        if lease_id not in books.leases:
            continue
        lease = books.leases[lease_id]
        granted = lease.deadline - books.lease_timeout_s - DELIVERY_S
        seconds = max(0.0, now - granted)
        node, actor = Node(Part.LEASE, cut(lease_id)), lease.session.partition("#")[0]
        yield Waiting(
            kind=WaitKind.LACKED_LEASE, who=who, on=node, seconds=seconds,
            detail=cut(f"at actor {actor}"),
        )  # fmt: skip
        is_claimed = lease.session in books.sessions
        kind = WaitKind.HELD_LEASE if is_claimed else WaitKind.UNCLAIMED_LEASE
        yield Waiting(kind=kind, who=node, on=Node(Part.ACTOR, cut(actor)), seconds=seconds)


def _handing_out(books: Books, who: Node, is_some_out: bool) -> Iterator[Waiting]:
    """What keeps the rest of ``who`` from being handed out; of those that are out others tell."""
    if not books.sessions and not books.unclaimed:
        yield _bound(WaitKind.NO_ACTOR, who)
    elif not books.is_somebody_asked:
        yield _bound(WaitKind.NO_SERVER, who)
    elif not is_some_out:
        kind = WaitKind.HAND_OUT if who.part is Part.GROUP else WaitKind.NO_ROOM
        yield _bound(kind, who, _why_none(books))


def _bound(kind: WaitKind, who: Node, detail: str = "") -> Waiting:
    return Waiting(kind=kind, who=who, on=Node(CATALOGUE[kind].on), seconds=0.0, detail=cut(detail))


def _why_none(books: Books) -> str:
    if books.credit.is_over(len(books.leases)):
        return _borne(books)
    if books.admission.is_full:
        return "trajectories take all the room they may (transport.buffer_mib)"
    if len(books.leases) >= books.sessions.credit:
        return "all actors hold as many episodes as they can (actors.episodes)"
    return (
        f"capacity {books.admission.capacity(books.version)} at depth {books.depth.batches:.3g}, "
        f"version {books.version} is acknowledged by the servers"
    )


def _ready(groups: GroupBuffer) -> str:
    return f"{len(groups.ready)} of {groups.groups_per_batch} groups ready"


def _borne(books: Books) -> str:
    return f"servers bear no more than {books.credit.limit(len(books.leases))} leases at once"
