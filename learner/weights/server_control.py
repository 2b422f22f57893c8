"""The HTTP routes of a policy server that the learner uses, one fresh connection per call.

A fresh connection cannot be one that the server is just closing; calls that may be repeated are
tried again when the connection drops.
"""

import http.client
import json
import time
import urllib.parse
from typing import Any

from common.errors import PolicyServerError

_ATTEMPTS = 3
_BACKOFF_S = 0.1


class ServerControl:
    """Pauses, updates and resumes the policy server at ``url``."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Talk to ``url``; each call may take ``timeout_s`` seconds."""
        self.url = url.rstrip("/")
        self._address = urllib.parse.urlsplit(self.url)
        self._timeout_s = timeout_s

    def version(self) -> str:
        """The weight version the server says it samples with (``default`` before the first)."""
        return str(self._repeat("GET", "/weight_info")["weight_version"])

    def workers(self) -> int:
        """How many workers hold a part of the model, and each receive weights."""
        return int(self._repeat("GET", "/get_world_size")["world_size"])

    def attach(self, endpoint: str) -> None:
        """Tell the workers where the publisher listens."""
        info = {"endpoint": endpoint, "server": self.url}
        self._repeat("POST", "/init_weight_transfer_engine", {"init_info": info})

    def pause(self) -> None:
        """Stop sampling; running requests wait, their caches are recomputed afterwards."""
        self._repeat("POST", "/pause?mode=keep")

    def resume(self) -> None:
        """Go on sampling."""
        self._repeat("POST", "/resume")

    def swap(self, version: int) -> None:
        """Load the staged weights of ``version``; the server must be paused."""
        try:
            self.call("POST", "/start_weight_update")
        except PolicyServerError:
            # An update that was cut off before may still be open; close it and start again.
            self.call("POST", "/finish_weight_update", {})
            self.call("POST", "/start_weight_update")
        self.call("POST", "/update_weights", {"update_info": {"version": version}})
        self.call("POST", "/finish_weight_update", {"weight_version": str(version)})

    def relabel(self, label: str) -> None:
        """Change the version the server reports, not its weights."""
        self._repeat("POST", "/update_weight_version", {"new_version": label})

    def generate(self, body: bytes, path: str) -> bytes:
        """Post an encoded generation request; the response body."""
        return self._send("POST", path, body)

    def _repeat(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                return self.call(method, path, body)
            except PolicyServerError as error:
                if attempt == _ATTEMPTS - 1 or not isinstance(error.__cause__, OSError):
                    raise
                time.sleep(_BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request; the decoded JSON of the answer.

        Raises:
            PolicyServerError: no answer, or one that is not 200; caused by an OSError where
                the connection failed.
        """
        payload = None if body is None else json.dumps(body).encode()
        answer = self._send(method, path, payload)
        return json.loads(answer) if answer else None

    def _send(self, method: str, path: str, payload: bytes | None) -> bytes:
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1", self._address.port, timeout=self._timeout_s
        )
        try:
            headers = {} if payload is None else {"Content-Type": "application/json"}
            connection.request(method, path, body=payload, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            cause = error if isinstance(error, OSError) else ConnectionError(repr(error))
            raise PolicyServerError(
                f"policy server {self.url}: {method} {path} got no answer: {error!r}"
            ) from cause
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            text = answer[:500].decode(errors="replace")
            raise PolicyServerError(
                f"policy server {self.url}: {method} {path} answered {response.status}: {text}"
            )
        return answer
