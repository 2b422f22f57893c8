"""A web service of the configuration: JSON in, JSON out, with a key that stays in this process."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.tools.web.client import WebClient
from actors.tools.web.messages import WebRequest, WebResponse
from common.errors import MachineError

_REFUSED = (401, 402, 403)
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceAddress:
    """Where a service is and how it takes its key.

    Attributes:
        name: for people, e.g. ``Serper``.
        url: without a slash at the end.
        key_variable: environment variable with the key; empty where none is needed.
        key_header: header that carries the key, in front of which ``key_prefix`` is put.
    """

    name: str
    url: str
    key_variable: str
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "


class WebService:
    """Calls one service through the shared client."""

    def __init__(self, client: WebClient, address: ServiceAddress) -> None:
        """Describe it; ``start`` reads the key."""
        self._client = client
        self._address = address
        self._secret_headers: dict[str, str] = {}

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs; none for a replay."""
        variable = self._address.key_variable
        return (variable,) if variable and not self._client.replays else ()

    async def start(self) -> None:
        """Read the key from the environment of this process, and open the client.

        Raises:
            MachineError: the variable is not set (no key is needed for a replay).
        """
        address = self._address
        for variable in self.variables:
            key = os.environ.get(variable, "").strip()
            if not key:
                raise MachineError(
                    f"{address.name} needs a key: set the environment variable {variable} where "
                    "the actor runs"
                )
            self._secret_headers = {address.key_header: address.key_prefix + key}
        await self._client.start()

    async def close(self) -> None:
        """Give the client back."""
        await self._client.close()

    async def post(self, path: str, body: bytes) -> Any:
        """The JSON answer to a JSON body, see ``encoded``.

        Raises:
            PermissionError: the service refused the key.
            TimeoutError: no attempt was answered in time.
            ValueError: another failure, or an answer that is not JSON, or nested too deeply.
        """
        request = WebRequest(
            method="POST",
            url=self._address.url + path,
            body=body,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            secret_headers=self._secret_headers,
        )
        response = await self._client.send(request, keep=_is_answer)
        return self._checked(response)

    def _checked(self, response: WebResponse) -> Any:
        name = self._address.name
        text = response.body[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")
        shown = " ".join(text.split())[:_SHOWN_CHARACTERS]
        if response.status in _REFUSED:
            variable = self._address.key_variable or "none is configured"
            raise PermissionError(
                f"{name} refused the key ({variable}): HTTP {response.status} {shown}"
            )
        if not response.ok:
            raise ValueError(f"{name} answered HTTP {response.status} {shown}")
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError):
            raise ValueError(f"{name} answered with something that is not JSON: {shown}") from None


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON that is the same for the same content, so that its cache entry is found again."""
    return json.dumps(body, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def _is_answer(response: WebResponse) -> bool:
    try:
        json.loads(response.body)
    except (ValueError, RecursionError):
        return False
    return response.ok
