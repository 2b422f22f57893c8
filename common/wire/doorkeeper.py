"""Says which public keys may connect to which door: ZeroMQ's authentication (RFC 27)."""

import logging
import threading
from collections.abc import Mapping

import zmq
from zmq.utils import z85

from common.telemetry.quiet_log import QuietLog

log = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_STOP = b"stop"


class Doorkeeper:
    """A thread that answers the questions of a context's doors."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Make it before the first door is opened."""
        self._members: dict[bytes, Mapping[bytes, str]] = {}
        self._quiet = QuietLog(log)
        self._context = context
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="doorkeeper", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def watch(self, door: str, members: Mapping[str, str]) -> None:
        """Let these through at ``door``: public key to name."""
        self._members[door.encode()] = {z85.decode(key): name for key, name in members.items()}

    def stop(self) -> None:
        """End the thread."""
        with self._context.socket(zmq.REQ) as stopper:
            stopper.setsockopt(zmq.LINGER, 0)
            stopper.connect(_ENDPOINT)
            stopper.send(_STOP)
            self._thread.join(timeout=5)

    def _run(self) -> None:
        with self._socket:
            while (request := self._socket.recv_multipart()) != [_STOP]:
                self._socket.send_multipart(self._answer(request))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        _, number, door, address, _, mechanism, *credentials = request
        name = None
        if mechanism == b"CURVE" and len(credentials) == 1:
            name = self._members.get(door, {}).get(credentials[0])
        if name is None:
            self._quiet.warning("refused a stranger", "door=%r address=%r", door, address)
            return [_VERSION, number, b"400", b"unknown key", b"", b""]
        return [_VERSION, number, b"200", b"OK", name.encode(), b""]
