"""HTTP to a policy server, wherever it listens: at a TCP address or a Unix socket.

A server is named by a URL: ``http://host:port``, or ``unix:/path`` for a Unix socket.
"""

import http.client
import socket
import urllib.parse

from common.places import Address

UNIX = "unix:"
UNIX_HOST = "policy-server"
"""What requests over a Unix socket call their host."""


def server_url(address: Address) -> str:
    """The URL of a server at that address."""
    return UNIX + address.bind if address.is_unix else f"http://{address.host}:{address.port}"


def open_connection(url: str, *, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to the server at ``url``, made with the first request."""
    if url.startswith(UNIX):
        return _UnixConnection(url.removeprefix(UNIX), timeout_s)
    place = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__(UNIX_HOST, timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
