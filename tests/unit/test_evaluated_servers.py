"""An evaluation asks the servers that have the weights it is about, and no others."""

import pytest

from actors.evaluate import servers_with
from common.errors import PolicyServerError
from common.places import Address, ServerPlace
from tests.weight_server import weight_servers


def test_only_servers_that_sample_with_the_version_are_asked() -> None:
    with weight_servers(3) as servers:
        places = [server.place for server in servers]
        gone = ServerPlace(name="gone", address=Address(bind="/nobody/listens.http"))
        servers[0].version, servers[2].version = "4", "torn"

        assert servers_with(4, [*places, gone]) == [places[0]]
        assert servers_with(0, [*places, gone]) == [places[1]], "it has what it was started with"


def test_where_no_server_has_the_version_each_is_named_with_what_it_says() -> None:
    with weight_servers(2) as servers:
        servers[0].version, servers[1].answers = "3", {"/weight_info": b"[]"}

        with pytest.raises(
            PolicyServerError, match=r"version 4, .* \(s0: 3; s1: no answer, Type.*resume"
        ):
            servers_with(4, [server.place for server in servers])
