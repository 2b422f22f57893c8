"""What is known of the run, written once a second, for ``lzero status`` and ``lzero why``.

consumes   the coordinator's books, the roster, reports of actors and servers, this process's waits
produces   ``status.json``
waits for  the clock; the lock of the intake, shortly
unblocked by  itself; a disk that takes nothing costs the file, not the run
"""

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from common.run_status import (
    EVERY_S,
    MOST_MEMBERS,
    Flow,
    MemberStatus,
    Note,
    RunStatus,
    most,
    write_status,
)
from common.telemetry.process_totals import TrajectoryCounts
from common.telemetry.quiet_log import QuietLog
from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.graph import Quiet
from common.waits.records import Node, Waiting, WaitReport, cut
from common.waits.register import WAITS, WaitRegister, chosen, counted
from common.wire.hosting import Admit, AskState, Attach
from learner.coordination.intake import Intake
from learner.coordination.membership import Membership
from learner.coordination.outstanding import ActorSeen
from learner.coordination.roster import LiveServer, Standing

log = logging.getLogger(__name__)

WINDOW_S = 60.0
SILENT_BEATS = 5
"""Heartbeats that an actor misses before it is silent."""
SILENT_S = 3.0
"""A policy server that has not answered a question which takes no time for this long is silent."""

_LEARNER = Node(Part.LEARNER)
_OF_LEARNER = {Part.LEARNER, Part.PUBLISH, Part.WATCH}
_OF_ACTOR = {Part.POOL, Part.KERNEL, Part.TOOL, Part.JUDGE, Part.MODEL_JUDGE, Part.ZYGOTE}
"""Parts that each actor has for itself."""
_SPEAKS_FOR = {Part.ACTOR, Part.LEASE, *_OF_ACTOR}
_AT_ONCE = {kind.__name__ for kind in (AskState, Attach, Admit)}
"""What a host that is well answers at once."""


class StatusWriter:
    """A thread that writes the status; a context manager."""

    def __init__(
        self,
        path: Path,
        intake: Intake,
        membership: Membership,
        *,
        steps: int,
        heartbeat_s: float,
        register: WaitRegister = WAITS,
    ) -> None:
        """Write to ``path`` how a run of ``steps`` steps is."""
        self._path = path
        self._intake, self._membership = intake, membership
        self._steps, self._heartbeat_s = steps, heartbeat_s
        self._register = register
        self._seen: deque[tuple[float, int, int]] = deque()
        self._stopping = threading.Event()
        self._quiet = QuietLog(log)
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what is known last stays, and whether the learner ended in order."""
        self._stopping.set()
        self._thread.join(timeout=5)
        self._write(has_ended=kind is None)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self._write(has_ended=False)

    def _write(self, *, has_ended: bool) -> None:
        try:
            write_status(self.look(has_ended=has_ended), self._path)
        except Exception as error:  # nobody is trained worse for it
            self._quiet.warning("status not written", "reason=%r", error)

    def look(self, *, has_ended: bool = False) -> RunStatus:
        """How the run is now."""
        waits = [w for w in self._register.waits() if _OF_LEARNER & {*CATALOGUE[w.kind].who}]
        seen = self._intake.observe(wanted=[wait.on for wait in waits if wait.who is None])
        servers = list(self._servers())
        actors = [_actor(actor, silent_s=self._silent_s) for actor in seen.actors]
        members = [*servers, *actors]
        counters = seen.counters
        edges = [
            *(_named(wait) for wait in waits),
            *seen.outstanding,
            *_of_servers(servers),
            *(wait for actor in seen.actors for wait in _of_actor(actor, self._silent_s)),
        ]
        return RunStatus(
            written_at=time.time(),
            has_ended=has_ended,
            step=seen.learner_version,
            steps=self._steps,
            version=seen.version,
            trajectories=TrajectoryCounts(
                started=counters.started,
                finished=counters.finished,
                trained=counters.trained,
                dropped=dict(counters.dropped),
                open=counters.started - counters.trained - sum(counters.dropped.values()),
            ),
            flow=self._flow(counters.finished, counters.tokens_generated),
            ready=seen.ready,
            open=seen.open,
            wanted=seen.wanted,
            depth=seen.depth,
            max_staleness=seen.max_staleness,
            credit=seen.credit,
            buffered_bytes=seen.buffered_bytes,
            learner=WaitReport(
                waits=chosen(waits),
                counts=counted(waits),
                queues={"journal_records": seen.unwritten, "letters": seen.letters},
            ),
            members=tuple(members[:MOST_MEMBERS]),
            others=max(0, len(members) - MOST_MEMBERS),
            waits=most(edges),
            silent=tuple([*self._silent_servers(waits), *self._silent_actors(seen.actors)]),
            notes=tuple(_notes(servers)),
        )

    @property
    def _silent_s(self) -> float:
        return SILENT_BEATS * self._heartbeat_s

    def _flow(self, finished: int, tokens: int) -> Flow:
        now = time.monotonic()
        self._seen.append((now, finished, tokens))
        while now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        then, finished_then, tokens_then = self._seen[0]
        seconds = now - then
        if seconds <= 0:
            return Flow()
        return Flow(
            seconds=seconds,
            trajectories_per_s=(finished - finished_then) / seconds,
            tokens_per_s=(tokens - tokens_then) / seconds,
        )

    def _servers(self) -> Iterator[MemberStatus]:
        reports = self._membership.reports()
        with self._membership.roster() as roster:
            causes, servers = roster.causes, roster.servers
            standings = {server.name: roster.standing(server.name) for server in servers}
        for server in servers:
            heard_s, report = reports.get(server.name, (-1.0, WaitReport()))
            yield _server(server, standings[server.name], causes.get(server.name, ""),
                          heard_s, report)  # fmt: skip

    def _silent_servers(self, waits: Sequence[Waiting]) -> Iterator[Quiet]:
        for wait in waits:
            is_late = wait.kind is WaitKind.ORDER and wait.seconds > SILENT_S
            if is_late and wait.detail in _AT_ONCE:
                yield Quiet(wait.on, wait.seconds, "has not answered")

    def _silent_actors(self, actors: Sequence[ActorSeen]) -> Iterator[Quiet]:
        for actor in actors:
            if actor.heard_s > self._silent_s:
                node = Node(Part.ACTOR, cut(actor.name))
                yield Quiet(node, actor.heard_s, "has said nothing")


def _named(wait: Waiting) -> Waiting:
    return wait if wait.who is not None else dataclasses.replace(wait, who=_LEARNER)


def _server(
    server: LiveServer, standing: Standing, cause: str, heard_s: float, report: WaitReport
) -> MemberStatus:
    return MemberStatus(
        node=Node(Part.SERVER, server.name),
        state=standing.value,
        cause=cut(cause),
        heard_s=heard_s,
        version=-1 if server.version is None else server.version,
        report=report,
    )


def _of_servers(servers: Sequence[MemberStatus]) -> Iterator[Waiting]:
    """What servers wait for, and which may not be asked where none may."""
    for server in servers:
        for wait in server.report.waits:
            if wait.who is None and Part.SERVER in CATALOGUE[wait.kind].who:
                yield dataclasses.replace(wait, who=server.node)
    if all(server.cause for server in servers):
        for server in servers:
            kind = WaitKind.UNASKED_SERVER
            yield Waiting(kind=kind, who=Node(Part.SERVERS), on=server.node, seconds=0.0)


def _notes(servers: Sequence[MemberStatus]) -> Iterator[Note]:
    for server in servers:
        if server.cause:
            yield Note(server.node, f"is {server.state}: {server.cause}")


def _actor(actor: ActorSeen, *, silent_s: float) -> MemberStatus:
    if actor.heard_s > silent_s:
        state = "silent"
    elif not actor.credit:
        state = "leaving"
    else:
        state = "working" if actor.leases else "idle"
    return MemberStatus(
        node=Node(Part.ACTOR, cut(actor.name)),
        state=state,
        heard_s=actor.heard_s,
        leases=len(actor.leases),
        report=actor.report,
    )


def _of_actor(actor: ActorSeen, silent_s: float) -> Iterator[Waiting]:
    """What an actor said of itself and of what it holds; of a silent one that is no news."""
    if actor.heard_s > silent_s:
        return
    held, me = {*actor.leases}, Node(Part.ACTOR, cut(actor.name))
    for wait in actor.report.waits:
        who = me if wait.who is None else _own(wait.who, actor.name)
        is_held = who.part is not Part.LEASE or who.name in held
        if is_held and who.part in CATALOGUE[wait.kind].who and who.part in _SPEAKS_FOR:
            on = _own(wait.on, actor.name)
            yield dataclasses.replace(wait, who=who, on=on)


def _own(node: Node, actor: str) -> Node:
    """A part that each actor has for itself, by a name that no other has."""
    if node.part not in _OF_ACTOR:
        return node
    return Node(node.part, cut(f"{actor}/{node.name}" if node.name else actor))
