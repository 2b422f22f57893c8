"""Ports that are 0 become free ones; a fixed port in use is named."""

import socket

import pytest

from common.config import Config, PolicyServer, Transport
from common.errors import EnvironmentFault
from launch.ports import check_port, resolve_ports


def test_zero_becomes_two_different_free_ports_and_fixed_ones_stay() -> None:
    free = resolve_ports(Config())
    fixed = resolve_ports(Config(transport=Transport(port=free.transport.port)))

    assert free.policy_server.port != free.transport.port
    assert fixed.transport.port == free.transport.port
    check_port(free.policy_server.port, "policy_server.port")


def test_a_port_in_use_names_the_key() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=rf"port {port} \(transport.port\) is in use"):
            resolve_ports(Config(transport=Transport(port=port)))


def test_impossible_ports_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"must lie between 0 and 65535, got 70000"):
        check_port(70000, "transport.port")
    both = Config(policy_server=PolicyServer(port=9), transport=Transport(port=9))
    with pytest.raises(EnvironmentFault, match=r"both 9"):
        resolve_ports(both)
