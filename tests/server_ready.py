"""Waits for a vLLM that a test started."""

import http.client
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path


def wait_until_ready(
    url: str, *, timeout_s: float, is_alive: Callable[[], bool], log_file: Path | None = None
) -> None:
    """Until it answers its health check; fails if it ends, or does not come in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert is_alive(), f"{url} ended before it was ready; see {log_file}"
        if _is_healthy(url):
            return
        time.sleep(0.2)
    raise AssertionError(f"{url} was not ready after {timeout_s:.0f} s; see {log_file}")


def _is_healthy(url: str) -> bool:
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
