"""Which public keys may connect to which door: the answers of ZeroMQ's authentication (RFC 27)."""

import logging
from collections.abc import Mapping, Sequence

from common.telemetry.quiet_log import QuietLog

log = logging.getLogger(__name__)

_VERSION = b"1.0"


class Doorkeeper:
    """Knows who may come in where; ``common.wire.sockets`` owns the socket."""

    def __init__(self) -> None:
        """Nobody may come in anywhere."""
        self._doors: dict[bytes, dict[bytes, str]] = {}
        self._quiet = QuietLog(log)

    def watch(self, door: str, members: Mapping[bytes, str]) -> dict[bytes, str]:
        """Let these through at ``door``: public key (32 bytes) to name.

        Returns:
            The list; who is put on it later gets through as well.
        """
        known = self._doors[door.encode()] = dict(members)
        return known

    def answer(self, request: Sequence[bytes]) -> list[bytes]:
        """The answer to one request: the member's name, or that there is none of that key."""
        _, number, door, address, _, mechanism, *credentials = request
        name = None
        if mechanism == b"CURVE" and len(credentials) == 1:
            name = self._doors.get(door, {}).get(credentials[0])
        if name is None:
            self._quiet.warning("refused a stranger", "door=%r address=%r", door, address)
            return [_VERSION, number, b"400", b"unknown key", b"", b""]
        return [_VERSION, number, b"200", b"OK", name.encode(), b""]
