"""An actor's end of the wire: leases in, trajectories out, each kept until it is acknowledged.

consumes   finished trajectories of the runner; leases and acks of the coordinator
produces   leases for the runner
waits for  a message, the next heartbeat, the next resend
unblocked by  the coordinator; after ``silence_s`` without a word from it the link fails
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import zmq
import zmq.asyncio

from common.codec import SCHEMA_VERSION, Buffer, Record, decode, encode
from common.errors import ProtocolError
from common.messages import (
    Ack,
    Drain,
    Heartbeat,
    Hello,
    Refused,
    TaskLease,
    Trajectory,
    Welcome,
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Unacknowledged:
    frames: list[Buffer]
    sent_at: float


class CoordinatorLink:
    """DEALER socket to the coordinator, with hello, heartbeats, acks and resends."""

    def __init__(
        self,
        endpoint: str,
        *,
        actor_id: str,
        run_id: str,
        credit: int,
        kernel_level: str,
        heartbeat_s: float,
        resend_s: float,
        silence_s: float,
    ) -> None:
        """Nothing is sent before ``run``."""
        self._endpoint = endpoint
        self._actor_id = actor_id
        self._run_id = run_id
        self._credit = credit
        self._kernel_level = kernel_level
        self._heartbeat_s = heartbeat_s
        self._resend_s = resend_s
        self._silence_s = silence_s
        self._unacknowledged: dict[str, _Unacknowledged] = {}
        self._held: set[str] = set()
        self._leases: asyncio.Queue[TaskLease | None] = asyncio.Queue()
        self._last_heard = time.monotonic()
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, actor_id.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self.resent = 0

    async def run(self) -> None:
        """Talk to the coordinator until it says drain.

        Raises:
            ProtocolError: the coordinator refused this actor.
            TimeoutError: the coordinator has been silent for ``silence_s``.
        """
        self._socket.connect(self._endpoint)
        await self._hello()
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._beat())
                try:
                    await self._receive()
                finally:
                    beat.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._leases.put_nowait(None)

    async def next_lease(self) -> TaskLease | None:
        """The next lease; None when no more will come."""
        return await self._leases.get()

    async def deliver(self, trajectory: Trajectory) -> None:
        """Send a trajectory, and again until it is acknowledged."""
        frames = encode(trajectory)
        self._held.discard(trajectory.trajectory_id)
        self._unacknowledged[trajectory.trajectory_id] = _Unacknowledged(frames, time.monotonic())
        await self._socket.send_multipart(frames)

    async def leave(self, *, timeout_s: float) -> int:
        """Say goodbye, after waiting for outstanding acks; returns how many never came."""
        deadline = time.monotonic() + timeout_s
        while self._unacknowledged and time.monotonic() < deadline:
            if not await self._socket.poll(100):
                continue
            self._handle(await self._read())
        await self._send(Drain(reason="the actor has finished"))
        self._socket.close(linger=2000)
        return len(self._unacknowledged)

    def close(self) -> None:
        """Release the socket at once."""
        self._context.destroy(linger=0)

    async def _hello(self) -> None:
        holding = (*self._held, *self._unacknowledged)
        await self._send(
            Hello(
                actor_id=self._actor_id,
                run_id=self._run_id,
                schema_version=SCHEMA_VERSION,
                credit=self._credit,
                kernel_level=self._kernel_level,
                unacknowledged=holding,
            )
        )

    async def _receive(self) -> None:
        while True:
            record = await self._read()
            if isinstance(record, Drain):
                log.info("drain received reason=%s", record.reason)
                return
            if isinstance(record, Refused):
                if record.reason != "hello":
                    raise ProtocolError(f"the coordinator refused this actor: {record.reason}")
                await self._hello()
            self._handle(record)

    def _handle(self, record: Record) -> None:
        if isinstance(record, Ack):
            self._unacknowledged.pop(record.trajectory_id, None)
        elif isinstance(record, TaskLease):
            self._held.add(record.lease_id)
            self._leases.put_nowait(record)
        elif isinstance(record, Welcome):
            log.info("coordinator welcomed this actor run=%s", record.run_id)

    async def _read(self) -> Record:
        frames: Sequence[zmq.Frame] = await self._socket.recv_multipart(copy=False)
        self._last_heard = time.monotonic()
        return decode([frame.buffer for frame in frames])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            now = time.monotonic()
            if now - self._last_heard > self._silence_s:
                raise TimeoutError(
                    f"actor {self._actor_id}: the coordinator at {self._endpoint} has been silent "
                    f"for {now - self._last_heard:.0f} s (transport.silence_s)"
                )
            await self._send(Heartbeat(actor_id=self._actor_id, leases=tuple(self._held)))
            for item in list(self._unacknowledged.values()):
                if now - item.sent_at > self._resend_s:
                    item.sent_at = now
                    self.resent += 1
                    await self._socket.send_multipart(item.frames)

    async def _send(self, record: Record) -> None:
        await self._socket.send_multipart(encode(record))
