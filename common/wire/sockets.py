"""ZeroMQ, set up in one place: who may connect, how much may wait, and when a peer is gone.

A process has one ``Wire``. Through it it listens at a ``Door`` (a ROUTER) or connects a ``Line`` (a
DEALER); for asyncio there are those of ``common.wire.asynchronous``. Every connection is encrypted
and both ends prove who they are (CURVE, RFC 26): a peer whose public key the door does not know
gets no further than the handshake, and what a peer sends carries the name that its key stands for.
A door belongs to one thread, but for ``wake``.
"""

import os
import resource
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import zmq
import zmq.asyncio
from zmq.utils import z85

from common.errors import MachineError
from common.places import Address
from common.wire.asynchronous import AsyncDoor, AsyncLine
from common.wire.codec import Buffer
from common.wire.doorkeeper import Doorkeeper
from common.wire.keys import CHARACTERS, KeyPair, is_key
from common.wire.parcels import Parcel, read_parcel
from common.wire.parts import PART_BYTES, cut

_QUESTIONS = "inproc://zeromq.zap.01"
"""Where ZeroMQ asks whether a peer may connect; the name is the protocol's."""
_NO_MORE = b"no more"
_HANDSHAKE_MS = 5_000
_ENCRYPTION_BYTES = 33
"""That CURVE adds to each part of a message."""
_ASK_AFTER_S = 5
_ASK_TIMES = 5
_GONE_AFTER_MS = 1000 * _ASK_AFTER_S * (1 + _ASK_TIMES)
_DESCRIPTORS = 65_536
_REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip
_LOSSES = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | _REFUSALS


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerLimits:
    """What one peer of a door may make it keep.

    Attributes:
        part_bytes: largest part of a message; a peer that sends a larger one is disconnected. So
            much of anybody who connects is taken, also before it has proved who it is.
        message_bytes: of all parts of a message with a long frame (``common.wire.parts``); a
            longer one arrives empty.
        queued_in: messages of a peer that wait to be received; it is read no further beyond them.
        queued_out: messages that wait for a peer.
        must_arrive: whether a message for somebody who is gone or does not read is an error
            (``UndeliverableError``); else it is dropped.
    """

    part_bytes: int = PART_BYTES
    message_bytes: int = 64 << 20
    queued_in: int = 64
    queued_out: int
    must_arrive: bool = False


SocketError = zmq.ZMQError
"""What ZeroMQ itself raises."""

AsyncContext = zmq.asyncio.Context


class UndeliverableError(Exception):
    """The peer is gone, or does not read."""


class Wire:
    """The sockets of one process: one context, and a doorkeeper if it listens."""

    def __init__(self, own: KeyPair) -> None:
        """A process that proves itself with ``own``."""
        self._own = own
        self._context = zmq.Context()
        self._doorkeeper = Doorkeeper()
        self._answering: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Nothing is open yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is left open."""
        self.close()

    def listen(
        self, name: str, address: Address, members: Mapping[str, str], limits: PeerLimits
    ) -> "Door":
        """Open a door.

        Args:
            name: of the door, in log lines.
            address: to bind.
            members: what is known: public key to name.
            limits: of each peer.

        Raises:
            MachineError: the address cannot be bound.
        """
        socket, known = self._router(self._context, name, address, members, limits)
        return Door(socket, _bound(socket, address, self._own), limits, known)

    def listen_async(
        self, name: str, address: Address, members: Mapping[str, str], limits: PeerLimits
    ) -> AsyncDoor:
        """Open a door for asyncio; see ``listen``."""
        context = zmq.asyncio.Context.shadow(self._context)
        socket, known = self._router(context, name, address, members, limits)
        address = _bound(socket, address, self._own)
        return AsyncDoor(socket, address, limits.message_bytes, partial(_admit, known))

    def connect(self, address: Address, *, identity: bytes, watched: bool = False) -> "Line":
        """A line to a door, for blocking use.

        ``receive`` of one that is ``watched`` raises where the connection breaks or is refused.
        """
        return Line(*self._dealer(self._context, address, identity, watched=watched))

    def connect_async(
        self, address: Address, *, identity: bytes, watched: bool = False
    ) -> AsyncLine:
        """A line to a door, for asyncio; only one that is ``watched`` can be asked for ``lost``."""
        context = zmq.asyncio.Context.shadow(self._context)
        dealer, losses = self._dealer(context, address, identity, watched=watched)
        return AsyncLine(dealer, losses, refusals=_REFUSALS)

    def close(self) -> None:
        """Close every socket of the process."""
        if self._answering is not None:
            with self._context.socket(zmq.REQ) as stopper:
                stopper.connect(_QUESTIONS)
                stopper.send(_NO_MORE)
                self._answering.join()
            self._answering = None
        self._context.destroy(linger=0)

    def _answer_questions(self) -> None:
        """Have a thread answer what ZeroMQ asks of who wants to connect; before the first door."""
        if self._answering is None:
            questions = self._context.socket(zmq.REP)
            questions.bind(_QUESTIONS)
            self._answering = threading.Thread(
                target=_answer, args=(questions, self._doorkeeper), name="doorkeeper", daemon=True
            )
            self._answering.start()

    def _router(
        self,
        context: "zmq.Context[Any]",
        name: str,
        address: Address,
        members: Mapping[str, str],
        limits: PeerLimits,
    ) -> tuple[Any, dict[bytes, str]]:
        """A bound socket, and the keys that get through."""
        known = self._doorkeeper.watch(name, {_decoded(k): who for k, who in members.items()})
        self._answer_questions()
        if not address.is_unix:
            _allow_descriptors()
        socket = context.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = _encoded(self._own)
        socket.setsockopt(zmq.ZAP_DOMAIN, name.encode())
        _keep_alive(socket, address)
        _limit(socket, limits)
        try:
            socket.bind(_endpoint(address, address.bind))
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise MachineError(
                f"the {name} cannot listen at {address}: {error.strerror}; choose another address "
                "(transport.listen), or port 0 for any free one"
            ) from error
        return socket, known

    def _dealer(
        self, context: "zmq.Context[Any]", address: Address, identity: bytes, *, watched: bool
    ) -> tuple[Any, Any]:
        """A socket that connects, and what tells of its losses, from the first one on."""
        socket = context.socket(zmq.DEALER)
        socket.curve_publickey, socket.curve_secretkey = _encoded(self._own)
        socket.curve_serverkey = address.key.encode()
        socket.setsockopt(zmq.IDENTITY, identity)
        socket.setsockopt(zmq.SNDHWM, 0)
        _keep_alive(socket, address)
        losses = socket.get_monitor_socket(_LOSSES) if watched else None
        socket.connect(_endpoint(address, address.host))
        return socket, losses


class Door:
    """A ROUTER to which only members get through."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        address: Address,
        limits: PeerLimits,
        known: dict[bytes, str],
    ) -> None:
        """``address`` is where it really listens; ``known`` are the keys that get through."""
        self.address = address
        self._known = known
        self._longest = limits.message_bytes
        self._socket = socket
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_open = True
        self._closing = threading.Lock()
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._wakes, zmq.POLLIN)

    def admit(self, key: str, member: str) -> None:
        """Let whoever proves this key in from now on, under that name; from any thread.

        Raises:
            ValueError: it is no key.
        """
        _admit(self._known, key, member)

    def wait(self, timeout_ms: int | None = None) -> None:
        """Return when there is a message, or after ``wake``, or when the time is up."""
        if self._wakes in dict(self._poller.poll(timeout_ms)):
            with suppress(BlockingIOError):
                os.eventfd_read(self._wakes)

    def wake(self) -> None:
        """End a ``wait`` of the door's thread, from any thread; nothing where it is closed."""
        with self._closing:
            if self._is_open:
                os.eventfd_write(self._wakes, 1)

    def receive(self) -> Parcel | None:
        """The next message, if there is one."""
        receive = self._socket.recv
        try:
            parts = [receive(zmq.NOBLOCK, copy=False)]
        except zmq.Again:
            return None
        while parts[-1].more:  # ``recv_multipart`` asks the socket, which takes as long as a part
            parts.append(receive(copy=False))
        return read_parcel(parts, self._longest)

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> None:
        """Send to the peer of that identity.

        Raises:
            UndeliverableError: it is gone or does not read, where messages must arrive.
        """
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            raise UndeliverableError(error.strerror) from error

    def close(self) -> None:
        """Close it; what was not sent is lost."""
        self._socket.close(linger=0)
        with self._closing:
            if self._is_open:
                os.close(self._wakes)
            self._is_open = False


class Line:
    """A DEALER to a door."""

    def __init__(self, socket: "zmq.Socket[bytes]", losses: "zmq.Socket[bytes] | None") -> None:
        """Made by ``Wire.connect``; ``losses`` tells of those of a line that is watched."""
        self._socket = socket
        self._losses = losses
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        if losses is not None:
            self._poller.register(losses, zmq.POLLIN)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send, as soon as there is a connection."""
        self._socket.send_multipart(cut(frames))

    def receive(self, *, timeout_ms: int) -> list[memoryview] | None:
        """The next message; None if none came in time.

        Raises:
            UndeliverableError: the connection broke or was refused, on a line that is watched.
        """
        ready = dict(self._poller.poll(timeout_ms))
        if not ready:
            return None
        if self._socket not in ready:
            raise UndeliverableError("nothing listens there, or no longer")
        return [frame.buffer for frame in self._socket.recv_multipart(copy=False)]

    def close(self) -> None:
        """Close it; what was not sent is lost."""
        if self._losses is not None:
            self._socket.disable_monitor()
            self._losses.close(linger=0)
        self._socket.close(linger=0)


def bounded_context(*, part_bytes: int, queued_in: int) -> AsyncContext:
    """A context for a library that speaks ZeroMQ itself; limits as in ``PeerLimits``."""
    context = AsyncContext()
    context.setsockopt(zmq.MAXMSGSIZE, part_bytes)
    context.setsockopt(zmq.RCVHWM, queued_in)
    return context


def _answer(questions: "zmq.Socket[bytes]", doorkeeper: Doorkeeper) -> None:
    with questions:
        while (question := questions.recv_multipart()) != [_NO_MORE]:
            questions.send_multipart(doorkeeper.answer(question))


def _admit(known: dict[bytes, str], key: str, member: str) -> None:
    known[_decoded(key)] = member


def _decoded(key: str) -> bytes:
    """The 32 bytes of a key; raises ValueError for what is none."""
    if is_key(key):
        with suppress(struct.error):  # five characters may stand for more than four bytes
            return bytes(z85.decode(key))
    raise ValueError(f"a key has {CHARACTERS} characters of Z85, got {key[: CHARACTERS + 1]!r}")


def new_key_pair() -> KeyPair:
    """Fresh keys for one member of a run."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public=public.decode(), secret=secret.decode())


def _allow_descriptors() -> None:
    """Have strangers, who hold one each until their handshake times out, leave enough for us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _endpoint(address: Address, host: str) -> str:
    if address.is_unix:
        return f"ipc://{address.bind}"
    return f"tcp://{host}:{address.port or '*'}"


def _bound(socket: "zmq.Socket[bytes]", address: Address, own: KeyPair) -> Address:
    if address.is_unix:
        return Address(bind=address.bind, key=own.public)
    port = int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
    return Address(bind=address.bind, host=address.host, port=port, key=own.public)


def _encoded(pair: KeyPair) -> tuple[bytes, bytes]:
    return pair.public.encode(), pair.secret.encode()


def _keep_alive(socket: "zmq.Socket[Any]", address: Address) -> None:
    """Have the system find out that the other machine is gone.

    Heartbeats of ZeroMQ would as well, but libzmq 4.3.5 aborts the process (``!_io_error``) where
    one is due to a peer that went while more than ``queued_in`` of its messages were waiting.
    """
    socket.setsockopt(zmq.IPV6, int(":" in address.host))
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _ASK_AFTER_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _ASK_AFTER_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _ASK_TIMES)
    socket.setsockopt(zmq.TCP_MAXRT, _GONE_AFTER_MS)


def _limit(socket: "zmq.Socket[bytes]", limits: PeerLimits) -> None:
    # A session that comes back after a cut takes its own place; its identity holds a secret.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.ROUTER_MANDATORY, int(limits.must_arrive))
    socket.setsockopt(zmq.MAXMSGSIZE, limits.part_bytes + _ENCRYPTION_BYTES)
    socket.setsockopt(zmq.RCVHWM, limits.queued_in)
    socket.setsockopt(zmq.SNDHWM, limits.queued_out)
