"""Free ports on loopback."""

import dataclasses
import socket

from common.config import Config
from common.errors import EnvironmentFault


def resolve_ports(config: Config) -> Config:
    """The configuration with a free port wherever it says 0.

    Raises:
        EnvironmentFault: a fixed port is in use, or both are the same.
    """
    server, transport = config.policy_server, config.transport
    if server.port and server.port == transport.port:
        raise EnvironmentFault(
            f"policy_server.port and transport.port are both {server.port}; they must differ"
        )
    check_port(server.port, "policy_server.port")
    check_port(transport.port, "transport.port")
    free = _free_ports(2)
    return dataclasses.replace(
        config,
        policy_server=dataclasses.replace(server, port=server.port or free[0]),
        transport=dataclasses.replace(transport, port=transport.port or free[1]),
    )


def check_port(port: int, key: str) -> None:
    """Refuse a port that cannot be bound on loopback; 0 means any.

    Raises:
        EnvironmentFault: the port is out of range or in use.
    """
    if not 0 <= port <= 65535:
        raise EnvironmentFault(f"{key} must lie between 0 and 65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EnvironmentFault(
                f"port {port} ({key}) is in use on 127.0.0.1; free it, or set {key} to 0 for any "
                f"free one ({error.strerror})"
            ) from error


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
