"""Lets only those connect who bring the key: ZeroMQ's authentication (RFC 27), for one context.

Without it, whoever reaches the port may fill the memory of the process with the parts of a message
that never ends. With it, a stranger does not get beyond the handshake.
"""

import hmac
import logging

import zmq

from common.quiet_log import QuietLog
from common.weight_wire import KEY_OWNER

log = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"


class Doorkeeper:
    """Answers the requests of a context's sockets whether a peer may connect."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", key: str) -> None:
        """Make it before the sockets that it guards are bound; ``socket`` is to be polled."""
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)
        self._key = key.encode()
        self._quiet = QuietLog(log)

    def answer(self) -> None:
        """Answer one request; there must be one."""
        _, number, _, address, _, mechanism, *credentials = self.socket.recv_multipart()
        welcome = mechanism == b"PLAIN" and credentials[:1] == [KEY_OWNER]
        welcome = welcome and hmac.compare_digest(b"".join(credentials[1:]), self._key)
        if not welcome:
            self._quiet.warning("refused a stranger", "address=%r", address)
        status = (b"200", b"OK") if welcome else (b"400", b"no key")
        self.socket.send_multipart([_VERSION, number, *status, b"", b""])
