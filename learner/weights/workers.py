"""Which workers of policy servers are known, what each holds, and what it is to be sent next.

Pure: events in, decisions out; ``learner.weights.channel`` owns the socket. What always holds:

* Only a worker that was expected is believed or served, and only after it said hello.
* At most one snapshot is under way to a worker, so one that does not read keeps one alive.
* A report counts for what is under way only, and over the connection that said hello last.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

from common.wire.records import WeightManifest
from common.wire.weights import ReportKind, StagingReport


class Sendable(Protocol):
    """A snapshot, as far as this file needs to know it."""

    @property
    def manifest(self) -> WeightManifest:
        """Its header."""
        ...


S = TypeVar("S", bound=Sendable)


@dataclass(kw_only=True, slots=True)
class Worker:
    """One worker that was expected.

    Attributes:
        server, rank: who it is.
        identity: of the connection over which it said hello; empty before.
        listening: it said hello, and everything since went well.
        under_way: what it was sent and has not reported on.
        staged: version it holds; None before the first.
        base: checksum of the last whole model it was sent.
        refusal: why it refused what it was sent last.
    """

    server: str
    rank: int
    identity: bytes = b""
    listening: bool = False
    under_way: WeightManifest | None = None
    staged: int | None = None
    base: str = ""
    refusal: str = ""


class Workers:
    """All workers that were expected, by server and rank."""

    def __init__(self) -> None:
        """Nobody is expected."""
        self._known: dict[tuple[str, int], Worker] = {}

    def expect(self, server: str, count: int) -> None:
        """Believe ``count`` workers of ``server`` from now on, once each has said hello."""
        self.forget(server)
        for rank in range(count):
            self._known[server, rank] = Worker(server=server, rank=rank)

    def forget(self, server: str) -> None:
        """Believe nobody who speaks for ``server``, and send nothing there."""
        self._known = {
            key: worker for key, worker in self._known.items() if worker.server != server
        }

    def of(self, server: str) -> list[Worker]:
        """The workers of ``server``."""
        return [worker for worker in self._known.values() if worker.server == server]

    @property
    def all(self) -> Collection[Worker]:
        """All of them."""
        return self._known.values()

    def hear(self, identity: bytes, report: StagingReport) -> str:
        """Take a report in; why it is not believed, or nothing if it is."""
        worker = self._known.get((report.server, report.rank))
        if worker is None:
            return "nobody of that name is expected"
        if report.kind is ReportKind.HELLO:
            self._known[worker.server, worker.rank] = Worker(
                server=worker.server, rank=worker.rank, identity=identity, listening=True
            )
            return ""
        if worker.identity != identity:
            return f"worker {report.rank} of {report.server} speaks over another connection"
        sent, worker.under_way = worker.under_way, None
        if sent is None:
            return "nothing was sent to it"
        if report.kind is ReportKind.REFUSED:
            worker.refusal, worker.listening = report.reason or "it gave no reason", False
            return ""
        if report.version != sent.version:
            worker.under_way = sent
            return f"version {sent.version} was sent to it, not {report.version}"
        worker.staged = sent.version
        return ""

    def due(self, worker: Worker, newest: S | None, base: S | None) -> S | None:
        """What ``worker`` is to be sent now: the whole model first, then the newest version."""
        if newest is None or not worker.listening or worker.under_way is not None:
            return None
        if base is not None and worker.base != base.manifest.checksum:
            return base
        return newest if worker.staged != newest.manifest.version else None

    def sent(self, worker: Worker, manifest: WeightManifest) -> None:
        """``due`` was sent."""
        worker.under_way = manifest
        if not manifest.base:
            worker.base = manifest.checksum

    def lost(self, worker: Worker, reason: str) -> None:
        """It is not connected, or takes nothing more; it has to say hello again."""
        worker.listening, worker.under_way = False, None
        worker.refusal = f"sending them failed, {reason}"
