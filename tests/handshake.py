"""Whether a ZeroMQ server lets a peer in."""

from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

_ENDS = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)


def connect(socket: "zmq.Socket[Any]", endpoint: str) -> bool:
    """Connect; whether the peer was let in. Nothing that it sends gets there before that."""
    monitor = socket.get_monitor_socket(_ENDS)
    socket.connect(endpoint)
    assert monitor.poll(10_000), "no handshake"
    event = recv_monitor_message(monitor)["event"]
    socket.disable_monitor()
    monitor.close(linger=0)
    return event == zmq.Event.HANDSHAKE_SUCCEEDED
