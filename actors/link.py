"""An actor's end of the wire: leases in, trajectories out, each kept until it is acknowledged.

consumes   finished trajectories of the runner; leases and acks of the coordinator
produces   leases for the runner, and word of leases that are over without it
waits for  a message, the next heartbeat, the next resend
unblocked by  the coordinator; after ``patience_s`` without a word from it the link fails

One link is one *session*: it says hello until it is welcomed, and again when the coordinator does
not know it, as one that began again does not; each hello names what it holds. While it is away,
episodes go on, and what they made is kept. A lease is *held*
from its arrival until its trajectory is acknowledged, or until the coordinator's welcome does not
name it: then its fate has been decided elsewhere. Every heartbeat names all that is held, so that
nothing can be lost between the two without being noticed.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from actors.heartbeat import actor_report
from common.errors import ProtocolError
from common.places import Address
from common.telemetry.process_totals import ActorTotals
from common.waits.catalogue import WaitKind
from common.waits.lag import LoopLag
from common.waits.records import WaitReport
from common.waits.register import WAITS
from common.wire.codec import SCHEMA_VERSION, Buffer, Record, decode, encode
from common.wire.records import TaskLease, Trajectory
from common.wire.session import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloWanted,
    Leave,
    Refused,
    Rejected,
    Rotation,
    Welcome,
)
from common.wire.sockets import Wire

log = logging.getLogger(__name__)

_AWAY_BEATS = 5
"""Heartbeats without an answer after which the coordinator counts as away."""


@dataclass(slots=True)
class _Unacknowledged:
    frames: list[Buffer]
    sent_at: float
    made_at: float


class CoordinatorLink:
    """A line to the coordinator, with hello, heartbeats, acks and resends."""

    def __init__(
        self,
        wire: Wire,
        coordinator: Address,
        *,
        actor_id: str,
        credit: int,
        kernel_level: str,
        heartbeat_s: float,
        resend_s: float,
        patience_s: float,
    ) -> None:
        """Nothing is sent before ``run``; ``actor_id`` is the member whose key ``wire`` has."""
        self.actor_id = actor_id
        self._coordinator = coordinator
        self._hello = Hello(
            actor_id=actor_id,
            session=secrets.token_hex(16),
            schema_version=SCHEMA_VERSION,
            credit=credit,
            kernel_level=kernel_level,
        )
        self._heartbeat_s = heartbeat_s
        self._resend_s = resend_s
        self._patience_s = patience_s
        self._seen = 0
        self._drained = False
        self._held: dict[str, None] = {}
        """Ids of leases, the oldest first."""
        self._unacknowledged: dict[str, _Unacknowledged] = {}
        self._leases: asyncio.Queue[TaskLease | None] = asyncio.Queue()
        self._on_revoked: Callable[[str], None] = lambda lease_id: None
        self._last_heard = time.monotonic()
        self._said_hello = 0.0
        self._is_away = False
        self._idle_since = time.monotonic()
        self._unwelcomed_since: float | None = self._idle_since
        self._lag = LoopLag()
        self._line = wire.connect_async(coordinator, identity=self._hello.identity.encode())
        self._rotation = 0
        self.on_rotation: Callable[[Rotation], None] = lambda rotation: None
        """Gets every rotation that replaces the one before."""
        self.on_welcome: Callable[[], None] = lambda: None
        self.resent = 0
        self.finish_s = 0.0
        """For what is still running when no more leases come, as the coordinator said."""

    async def run(self, on_revoked: Callable[[str], None]) -> None:
        """Talk to the coordinator until it says drain and wants nothing more.

        ``on_revoked`` is called with the id of every lease that is over without us.

        Raises:
            ProtocolError: the coordinator refused this actor.
            TimeoutError: the coordinator has been silent for ``patience_s``.
        """
        self._on_revoked = on_revoked
        self._last_heard = time.monotonic()
        await self._say_hello()
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(work) for work in (self._beat(), self._lag.run())]
                try:
                    await self._receive()
                finally:
                    for task in beside:
                        task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._leases.put_nowait(None)

    def end(self) -> None:
        """Somebody here wants the actor to leave: no lease comes any more, nothing is finished."""
        log.info("asked to leave")
        self._leases.put_nowait(None)

    def _is_over(self, drain: Drain) -> bool:
        """Whether nothing more is wanted; with time to finish the talk goes on without leases."""
        if not self._drained:
            log.info("drain received reason=%s finish_s=%.0f", drain.reason, drain.finish_s)
            self._drained = True
            self.finish_s = drain.finish_s
            self._leases.put_nowait(None)
        return drain.finish_s <= 0

    async def next_lease(self) -> TaskLease | None:
        """The next lease that is still held; None when no more will come."""
        while True:
            lease = await self._leases.get()
            if lease is None or lease.lease_id in self._held:
                return lease

    async def deliver(self, trajectory: Trajectory) -> None:
        """Send a trajectory, and again until it is acknowledged.

        Raises:
            ProtocolError: the coordinator could not read it; nothing was sent, the lease is held.
        """
        frames = checked_frames(trajectory)
        if trajectory.trajectory_id not in self._held:
            return  # revoked meanwhile
        now = time.monotonic()
        self._unacknowledged[trajectory.trajectory_id] = _Unacknowledged(frames, now, now)
        await self._line.send(frames)

    async def leave(self, totals: Callable[[], ActorTotals], *, timeout_s: float) -> int:
        """Say goodbye, after waiting for outstanding acks; returns how many never came.

        ``totals`` says at the end what this process did.
        """
        deadline = time.monotonic() + timeout_s
        while self._unacknowledged and time.monotonic() < deadline:
            if not await self._line.is_ready(timeout_ms=100):
                continue
            self._handle(await self._read())
        await self._send(Leave(reason="the actor has finished", totals=totals()))
        self._line.close(linger_ms=2000)
        return len(self._unacknowledged)

    def close(self) -> None:
        """Close the line at once."""
        self._line.close()

    async def _say_hello(self) -> None:
        self._said_hello = time.monotonic()
        await self._send(replace(self._hello, leases=tuple(sorted(self._held))))

    async def _receive(self) -> None:
        while True:
            record = await self._read()
            if isinstance(record, Drain):
                if self._is_over(record):
                    return
                continue
            if isinstance(record, Refused):
                raise ProtocolError(f"the coordinator refused this actor: {record.reason}")
            if isinstance(record, HelloWanted):
                self._unwelcomed_since = self._unwelcomed_since or time.monotonic()
                # A session that it does not know is sent serials from 1 again; and a coordinator
                # that began again numbers its rotations anew.
                self._seen = self._rotation = 0
                if time.monotonic() - self._said_hello >= self._heartbeat_s:
                    await self._say_hello()
                continue
            self._handle(record)

    def _handle(self, record: Record) -> None:
        if isinstance(record, Ack):
            self._unacknowledged.pop(record.trajectory_id, None)
            self._release(record.trajectory_id)
        elif isinstance(record, TaskLease):
            self._seen = max(self._seen, record.serial)
            self._held[record.lease_id] = None
            self._leases.put_nowait(record)
        elif isinstance(record, HeartbeatAck):
            self._seen = max(self._seen, record.sent)
        elif isinstance(record, Welcome):
            self._welcomed(record)
        elif isinstance(record, Rotation):
            self._rotated(record)
        elif isinstance(record, Rejected):
            log.warning("the coordinator could not use a message reason=%s", record.reason)

    def _welcomed(self, welcome: Welcome) -> None:
        """What the coordinator does not name is over; what it names it may not have got yet."""
        self.on_welcome()
        self._unwelcomed_since = None
        revoked = self._held.keys() - set(welcome.leases)
        log.info("coordinator welcomed this actor leases_revoked=%d", len(revoked))
        for lease_id in sorted(revoked):
            self._release(lease_id)
            self._unacknowledged.pop(lease_id, None)
            self._on_revoked(lease_id)
        for item in self._unacknowledged.values():
            item.sent_at = -inf

    def _release(self, lease_id: str) -> None:
        self._held.pop(lease_id, None)
        if not self._held:
            self._idle_since = time.monotonic()

    def _rotated(self, rotation: Rotation) -> None:
        if rotation.number > self._rotation:
            self._rotation = rotation.number
            self.on_rotation(rotation)

    async def _read(self) -> Record:
        frames = await self._line.receive()
        self._last_heard = time.monotonic()
        return decode(frames)

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(self._heartbeat_s)
            now = time.monotonic()
            self._excuse(now - began - self._heartbeat_s)
            self._check_silence(now - self._last_heard)
            await self._send(
                Heartbeat(
                    seen=self._seen,
                    leases=tuple(self._held),
                    rotation=self._rotation,
                    report=self._report(now),
                )
            )
            for item in list(self._unacknowledged.values()):
                if now - item.sent_at > self._resend_s:
                    item.sent_at = now
                    self.resent += 1
                    await self._line.send(item.frames)

    def _report(self, now: float) -> WaitReport:
        own: dict[WaitKind, float] = {}
        if self._unwelcomed_since is not None:
            own[WaitKind.WELCOME] = now - self._unwelcomed_since
        elif not self._held:
            own[WaitKind.TASK] = now - self._idle_since
        return actor_report(
            WAITS,
            held=tuple(self._held),
            unacknowledged={i: now - kept.made_at for i, kept in self._unacknowledged.items()},
            own=own,
            lag_s=self._lag.take(),
        )

    def _check_silence(self, silent_s: float) -> None:
        """Say that the coordinator is away, and that it is back; give up at last."""
        if silent_s > self._patience_s:
            raise TimeoutError(
                f"actor {self.actor_id}: the coordinator at {self._coordinator} has been "
                f"silent for {silent_s:.0f} s (60 times transport.silence_s)"
            )
        is_away = silent_s > _AWAY_BEATS * self._heartbeat_s
        if is_away and not self._is_away:
            log.warning(
                "the coordinator has been silent for %.0f s: this actor keeps %d leases and waits",
                silent_s, len(self._held),
            )  # fmt: skip
        elif self._is_away and not is_away:
            log.info("the coordinator is back")
        self._is_away = is_away

    def _excuse(self, overslept_s: float) -> None:
        """Time in which this process itself stood still says nothing about the coordinator."""
        if overslept_s > self._heartbeat_s:
            log.warning(
                "this actor stood still for %.1f s: something holds its event loop", overslept_s
            )
            self._last_heard += overslept_s

    async def _send(self, record: Record) -> None:
        await self._line.send(encode(record))


def checked_frames(trajectory: Trajectory) -> list[Buffer]:
    """The frames of a trajectory, as the other side will be able to read them."""
    try:
        frames = encode(trajectory)
    except Exception as error:  # whatever a field of a wrong type makes msgpack or numpy raise
        raise ProtocolError(f"the trajectory cannot be encoded: {error}") from error
    decode(frames)
    return frames
