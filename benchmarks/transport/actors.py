"""Actors of the benchmark: real links to a coordinator, whose episodes are made beforehand.

    python -m benchmarks.transport.actors ASKED.json

Each session is one of ``actors.link``, with a connection and a handshake of its own. What was
acknowledged, and how long each took, goes to a file at the end.
"""

import asyncio
import json
import logging
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from actors.link import CoordinatorLink
from actors.runner import run_leases
from benchmarks.transport.work import answered, made_trajectory
from common.config.processes import Transport
from common.places import Address
from common.telemetry.process_totals import ActorTotals
from common.wire.codec import Record
from common.wire.keys import read_key_pair
from common.wire.records import TaskLease, Trajectory
from common.wire.session import Ack
from common.wire.sockets import Wire

NO_TOTALS = ActorTotals(
    launcher="", kernel_level="", kernels_started=0, requests=0, request_retries=0,
    tokens_generated=0, resent=0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one process of actors does: ``sessions`` that hold ``slots`` leases each.

    ``pause_s`` is what an episode takes. The file ``result`` gets what came of it.
    """

    address: Address
    member: str
    keys: str
    result: str
    sessions: int
    slots: int
    num_bytes: int
    pause_s: float

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Asked":
        fields = json.loads(path.read_text())
        return cls(**fields | {"address": Address(**fields["address"])})


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one process of actors saw: milliseconds to the ack by the id of the lease."""

    delivery_ms: dict[str, float]
    unacknowledged: int
    resent: int

    @classmethod
    def read(cls, path: Path) -> "Told":
        return cls(**json.loads(path.read_text()))


class TimedLink(CoordinatorLink):
    """A link that remembers when what it delivered was acknowledged."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        self.delivered_at: dict[str, float] = {}
        self.delivery_ms: dict[str, float] = {}

    async def deliver(self, trajectory: Trajectory) -> None:
        self.delivered_at[trajectory.trajectory_id] = time.perf_counter()
        await super().deliver(trajectory)

    def _handle(self, record: Record) -> None:
        super()._handle(record)
        if isinstance(record, Ack):
            self._acknowledged(record.trajectory_id)

    def _acknowledged(self, lease_id: str) -> None:
        if (began := self.delivered_at.pop(lease_id, None)) is not None:
            self.delivery_ms[lease_id] = 1000 * (time.perf_counter() - began)


class Playing:
    """In place of an episode: time passes, and what was made comes."""

    def __init__(self, made: Trajectory, asked: Asked) -> None:
        self._made, self._asked = made, asked

    async def run(self, lease: TaskLease) -> Trajectory:
        if self._asked.pause_s:
            await asyncio.sleep(self._asked.pause_s)
        return answered(lease, self._made, self._asked.member)


async def serve(asked: Asked, wire: Wire) -> Told:
    transport = Transport()
    playing = Playing(made_trajectory(asked.num_bytes), asked)
    links = [
        TimedLink(
            wire, asked.address, actor_id=asked.member, credit=asked.slots, kernel_level="",
            heartbeat_s=transport.heartbeat_s, resend_s=transport.resend_s,
            patience_s=transport.patience_s,
        )
        for _ in range(asked.sessions)
    ]  # fmt: skip
    left = await asyncio.gather(*(run_leases(link, playing, lambda: NO_TOTALS) for link in links))
    acknowledged = {name: ms for link in links for name, ms in link.delivery_ms.items()}
    return Told(
        delivery_ms=acknowledged, unacknowledged=sum(left), resent=sum(one.resent for one in links)
    )


def main() -> None:
    logging.basicConfig(level=logging.ERROR)  # a thousand links say a thousand times what they see
    asked = Asked.read(Path(sys.argv[1]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Wire(read_key_pair(Path(asked.keys))) as wire:
        told = uvloop.run(serve(asked, wire))
    Path(asked.result).write_text(json.dumps(asdict(told)))


if __name__ == "__main__":
    main()
