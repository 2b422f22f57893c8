"""pyzmq alone: a ROUTER that takes CURVE messages of the same frames, and nothing else.

    python -m benchmarks.transport.raw ENDPOINT SERVER_KEY COUNT BYTES IN_FLIGHT

sends, one way, without ids, acks or leases; nothing is read of what comes, and nothing kept.
"""

import sys
import time

import zmq

from benchmarks.transport.processes import ended, started
from benchmarks.transport.work import Measured, frames_of

_WARM = 64
"""Messages before the first that counts."""
_END = b"end"
_WAIT_MS = 120_000


def deliver(*, num_bytes: int, count: int, in_flight: int) -> Measured:
    """One round: ``count`` messages, at most ``in_flight`` of which wait at either end."""
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.set_hwm(in_flight)
        socket.rcvtimeo, socket.linger = _WAIT_MS, 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        given = (f"tcp://127.0.0.1:{port}", public.decode(), str(count), str(num_bytes))
        with started("raw", *given, str(in_flight)) as sender:
            for _ in range(_WARM):
                identity = socket.recv_multipart(copy=False)[0]
            began, cpu_s = time.perf_counter(), time.process_time()
            for _ in range(count):
                socket.recv_multipart(copy=False)
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
            socket.send_multipart([bytes(identity.buffer), _END])
            ended(sender, within_s=_WAIT_MS / 1000)
    return Measured(per_s=count / seconds, cpu_ms=1000 * cpu_s / count)


def send(endpoint: str, server_key: str, count: int, num_bytes: int, in_flight: int) -> None:
    frames = frames_of(num_bytes)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key.encode()
        socket.set_hwm(in_flight)
        socket.sndtimeo = socket.rcvtimeo = _WAIT_MS
        socket.linger = 0
        socket.connect(endpoint)
        for _ in range(_WARM + count):
            socket.send_multipart(frames, copy=False)
        socket.recv()


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
