"""Lets only those connect who bring the key: ZeroMQ's authentication (RFC 27), for one context.

Without it, whoever reaches the port may fill the memory of the process with the parts of a message
that never ends. With it, a stranger does not get beyond the handshake.
"""

import hmac
import logging
from typing import Any

import zmq

from common.telemetry.quiet_log import QuietLog

log = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_NAME = b"l-zero"


class Doorkeeper:
    """Answers the requests of a context's guarded sockets whether a peer may connect."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", key: str) -> None:
        """Make it before the sockets that it guards are bound; ``socket`` is to be polled."""
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)
        self._key = key.encode()
        self._quiet = QuietLog(log)

    def guard(self, socket: "zmq.Socket[bytes]") -> None:
        """Have a socket of the context ask here; before it is bound."""
        socket.setsockopt(zmq.PLAIN_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, _NAME)

    def answer(self) -> None:
        """Answer one request; there must be one."""
        _, number, _, address, _, mechanism, *credentials = self.socket.recv_multipart()
        welcome = mechanism == b"PLAIN" and credentials[:1] == [_NAME]
        welcome = welcome and hmac.compare_digest(b"".join(credentials[1:]), self._key)
        if not welcome:
            self._quiet.warning("refused a stranger", "address=%r", address)
        status = (b"200", b"OK") if welcome else (b"400", b"no key")
        self.socket.send_multipart([_VERSION, number, *status, b"", b""])


def present_key(socket: "zmq.Socket[Any]", key: str) -> None:
    """Bring the key to a guarded socket; before connecting."""
    socket.setsockopt(zmq.PLAIN_USERNAME, _NAME)
    socket.setsockopt(zmq.PLAIN_PASSWORD, key.encode())
