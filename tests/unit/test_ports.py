"""A port that was chosen stays this command's until its server has bound it."""

import socket

import pytest

from common.config import Config, PolicyServer, Transport
from common.errors import EnvironmentFault
from launch.plan.ports import held_ports


def test_a_held_port_goes_to_its_server_and_to_nobody_else() -> None:
    with held_ports(Config()) as config:
        port = config.policy_server.port
        assert port
        assert config.transport.port == 0, "the coordinator chooses its own"
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does
            server.bind(("127.0.0.1", port))
            server.listen()
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()


def test_two_commands_hold_different_ports_and_a_fixed_one_stays() -> None:
    with held_ports(Config()) as first, held_ports(Config()) as second:
        assert first.policy_server.port != second.policy_server.port
    with held_ports(Config(policy_server=first.policy_server)) as fixed:
        assert fixed.policy_server.port == first.policy_server.port


@pytest.mark.parametrize("key", ["transport.port", "policy_server.port"])
def test_a_port_in_use_names_the_key(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sections = {
            "transport.port": Config(transport=Transport(port=port)),
            "policy_server.port": Config(policy_server=PolicyServer(port=port)),
        }
        with (
            pytest.raises(EnvironmentFault, match=rf"port {port} \({key}\) is in use"),
            held_ports(sections[key]),
        ):
            pass
    with held_ports(sections[key]):
        pass  # free again
