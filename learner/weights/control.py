"""The HTTP routes of a policy server that the learner uses, one fresh connection per call.

A fresh connection cannot be one that the server is just closing; calls that may be repeated are
tried again when the connection drops. Whoever waits long asks /health now and then, so that the
death of the engine is named at once, and not after the whole of a deadline.
"""

import contextlib
import dataclasses
import http.client
import json
import select
import time
from typing import Any

from common.errors import PolicyServerError
from common.places import Address
from common.wire.server_http import open_connection

_ATTEMPTS = 3
_BACKOFF_S = 0.1
_ASK_HEALTH_EVERY_S = 2.0
_SHORT_S = 5.0
"""Longest wait for an answer that only helps to say more, or to leave things tidy."""


class ServerControl:
    """Pauses, updates and resumes the policy server at ``url``; threads may share one."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Talk to ``url``; each call may take ``timeout_s`` seconds."""
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s

    def version(self) -> str:
        """The weight version the server says it samples with (``default`` before the first)."""
        return str(self._field("/weight_info", "weight_version"))

    def workers(self) -> int:
        """How many workers hold a part of the model, and each receive weights."""
        count = self._field("/get_world_size", "world_size")
        if not isinstance(count, int) or count < 1:
            raise PolicyServerError(f"policy server {self.url} says it has {count!r} workers")
        return count

    def attach(self, publisher: Address) -> None:
        """Tell the workers where the publisher listens, and by which key they know it."""
        info = dataclasses.asdict(publisher)
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

    def abandon(self, label: str) -> None:
        """After an update that failed: have it report ``label``, and go on, as far as it can.

        It does not raise, so that the cause of the failure stays the one that is told.
        """
        quick = ServerControl(self.url, timeout_s=min(_SHORT_S, self._timeout_s))
        for path, body in (("/update_weight_version", {"new_version": label}), ("/resume", None)):
            with contextlib.suppress(PolicyServerError):
                quick.call("POST", path, body)

    def generate(self, body: bytes, path: str) -> bytes:
        """Post an encoded generation request; the response body."""
        return self._send("POST", path, body)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request; the decoded JSON of the answer.

        Raises:
            PolicyServerError: no answer, one that is not 200, or none that can be read; caused by
                an OSError where the connection failed.
        """
        payload = None if body is None else json.dumps(body).encode()
        answer = self._send(method, path, payload)
        try:
            return json.loads(answer) if answer else None
        except (ValueError, RecursionError) as error:
            raise PolicyServerError(
                f"policy server {self.url}: {method} {path} answered no JSON: {answer[:200]!r}"
            ) from error

    def _field(self, path: str, name: str) -> Any:
        answer = self._repeat("GET", path)
        if not isinstance(answer, dict) or name not in answer:
            raise PolicyServerError(
                f"policy server {self.url}: the answer to {path} lacks '{name}': {answer!r:.200}"
            )
        return answer[name]

    def _repeat(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                return self.call(method, path, body)
            except PolicyServerError as error:
                cause = error.__cause__
                # Who hangs is not asked again: that would only hang for longer.
                dropped = isinstance(cause, OSError) and not isinstance(cause, TimeoutError)
                if attempt == _ATTEMPTS - 1 or not dropped:
                    raise
                time.sleep(_BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, payload: bytes | None) -> bytes:
        connection = self._connection(self._timeout_s)
        try:
            headers = {} if payload is None else {"Content-Type": "application/json"}
            connection.request(method, path, body=payload, headers=headers)
            self._await_answer(connection, f"{method} {path}")
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            cause = error if isinstance(error, OSError) else ConnectionError(repr(error))
            raise PolicyServerError(
                f"policy server {self.url}: {method} {path} got no answer: {error!r}"
                f"{self._state_of_health()}"
            ) from cause
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            text = answer[:500].decode(errors="replace")
            raise PolicyServerError(
                f"policy server {self.url}: {method} {path} answered {response.status}: {text}"
                f"{self._state_of_health()}"
            )
        return answer

    def _await_answer(self, connection: http.client.HTTPConnection, what: str) -> None:
        """Return when there is something to read; raise as soon as nothing can come any more."""
        deadline = time.monotonic() + self._timeout_s
        answer = select.poll()  # takes any descriptor, unlike select
        answer.register(connection.sock, select.POLLIN)
        while not answer.poll(1000 * min(_ASK_HEALTH_EVERY_S, self._timeout_s)):
            if death := self._death():
                raise PolicyServerError(
                    f"policy server {self.url}: {what} will get no answer: {death}"
                )
            if time.monotonic() > deadline:
                raise TimeoutError(f"timed out after {self._timeout_s:.0f} s")

    def _death(self) -> str:
        """What says that the server is dead; empty if nothing does."""
        connection = self._connection(min(_SHORT_S, self._timeout_s))
        try:
            connection.request("GET", "/health")
            status = connection.getresponse().status
        except (ConnectionRefusedError, FileNotFoundError):
            return "its process has ended, nothing listens there any more; see its log"
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return "its engine has died, /health answers 503; see its log"
        return ""

    def _state_of_health(self) -> str:
        """For the end of a message."""
        death = self._death()
        return f" ({death})" if death else ""

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return open_connection(self.url, timeout_s=timeout_s)
