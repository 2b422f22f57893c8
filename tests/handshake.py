"""Bare peers of a door: what they say before anybody knows who they are."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from common.places import Address

_ENDS = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""Of a client of ZMTP 3.0 that is going to speak CURVE."""

_COMMAND, _LONG_COMMAND = b"\x04", b"\x06"
_HELLO = b"\x05HELLO\x01\x00" + bytes(72) + os.urandom(120)

OPENINGS = {
    "nothing": b"",
    "half a greeting": GREETING[:20],
    "a greeting": GREETING,
    "a hello without a key": GREETING + _COMMAND + bytes([len(_HELLO)]) + _HELLO,
    "half a hello": GREETING + _COMMAND + bytes([len(_HELLO)]) + _HELLO[:50],
    "a giant frame": GREETING + _LONG_COMMAND + (1 << 40).to_bytes(8, "big") + bytes(1000),
    "an unfinished frame": GREETING + _LONG_COMMAND + (200_000).to_bytes(8, "big") + bytes(1000),
    "another mechanism": GREETING.replace(b"CURVE", b"PLAIN"),
    "garbage": os.urandom(300),
}
"""What a stranger may begin with."""


def dial(address: Address) -> socket.socket:
    """A bare connection."""
    if address.is_unix:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.bind)
        return connection
    return socket.create_connection((address.host, address.port))


def is_let_in(peer: "zmq.Socket[Any]", address: Address) -> bool:
    """Connect; whether the peer was let in. Nothing that it sends gets there before that."""
    monitor = peer.get_monitor_socket(_ENDS)
    where = f"ipc://{address.bind}" if address.is_unix else f"tcp://{address}"
    peer.connect(where)
    assert monitor.poll(10_000), "no handshake"
    event = recv_monitor_message(monitor)["event"]
    peer.disable_monitor()
    monitor.close(linger=0)
    return event == zmq.Event.HANDSHAKE_SUCCEEDED


_CROWD = """
import sys, os
sys.path.insert(0, sys.argv[1])
from common.places import Address
from tests.handshake import OPENINGS, dial
address = Address(bind=sys.argv[2], host=sys.argv[3], port=int(sys.argv[4]))
openings, crowd = list(OPENINGS.values()), []
for index in range(int(sys.argv[5])):
    crowd.append(dial(address))
    crowd[-1].sendall(openings[index % len(openings)])
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def a_crowd(address: Address, count: int) -> Iterator[None]:
    """As many strangers in a process of their own, who have all said what they have to say."""
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", _CROWD, root, address.bind, address.host, str(address.port)]
    with subprocess.Popen(
        [*command, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"there\n"
            yield
        finally:
            process.stdin.close()
            process.wait(10)
