"""Ports on loopback: whoever binds one keeps it.

The coordinator binds its own port and says which in ``learner.ready``. The policy server is
another program that takes a number, and binds it many seconds after it was started; until then a
socket of ours holds the port, bound but not listening, so that the kernel gives it to nobody who
asks for any free port. The server's own socket may join it, because both set SO_REUSEADDR.
"""

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from common.config import Config
from common.errors import EnvironmentFault

LOOPBACK = "127.0.0.1"


@contextmanager
def held_ports(config: Config) -> Iterator[Config]:
    """The configuration with a port for the policy server that nobody else gets meanwhile.

    ``transport.port`` stays as it is; if it is fixed it must be free.

    Raises:
        EnvironmentFault: a fixed port is in use.
    """
    _bound(config.transport.port, "transport.port").close()
    server = config.policy_server
    with _bound(server.port, "policy_server.port") as holder:
        port = int(holder.getsockname()[1])
        yield dataclasses.replace(config, policy_server=dataclasses.replace(server, port=port))


def _bound(port: int, key: str) -> socket.socket:
    """A socket that holds ``port``, or any free one for 0; a port in use is a fault of ``key``."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((LOOPBACK, port))
    except OSError as error:
        holder.close()
        raise EnvironmentFault(
            f"port {port} ({key}) is in use on {LOOPBACK}; free it, or set {key} to 0 for any "
            f"free one ({error.strerror})"
        ) from error
    return holder
