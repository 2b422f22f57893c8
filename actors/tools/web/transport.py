"""Sends one request over the network: pace per host, attempts, time and size limits."""

import asyncio
import logging
import time

import aiohttp
from yarl import URL

from actors.tools.arguments import valid_text
from actors.tools.web.messages import WebRequest, WebResponse
from actors.tools.web.retry import LONGEST_WAIT_S, Pace, TransientError, backoff, retry_after
from actors.tools.web.rules import NotPublicError, checked_host, public_socket
from common.config import Web

USER_AGENT = "l-zero/0.1"
_REDIRECTS = (301, 302, 303, 307, 308)
_TOO_MANY_REQUESTS = 429
_CHUNK_BYTES = 1 << 16
_HIDDEN = b"***"
_logger = logging.getLogger(__name__)


class WebTransport:
    """Connections of one process. Keeps no cookies and follows no redirects."""

    def __init__(self, web: Web, *, first_backoff_s: float = 0.5) -> None:
        """Describe it; ``start`` opens it, in a running event loop."""
        self._web = web
        self._first_backoff_s = first_backoff_s
        self._pace = Pace(web.requests_per_s)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def start(self) -> None:
        """Open two sets of connections: to anywhere, and to the public internet only."""
        for guarded in (False, True):
            connector = aiohttp.TCPConnector(
                socket_factory=public_socket if guarded else None,
                happy_eyeballs_delay=None if guarded else 0.25,
            )
            self._sessions[guarded] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._web.timeout_s),
                headers={"User-Agent": USER_AGENT},
            )

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def send(self, request: WebRequest, url: URL, *, guarded: bool) -> WebResponse:
        """Send ``request`` to ``url``, again where that may help.

        Args:
            request: what to send.
            url: where to; the request's own address, or one that it redirected to.
            guarded: connect to public addresses only.

        Raises:
            PermissionError: ``guarded``, and the host is not on the public internet.
            TimeoutError: no attempt was answered in time.
            ValueError: no attempt succeeded, or the answer is too large.
        """
        host = checked_host(url)
        for attempt in range(1, self._web.attempts + 1):
            await self._pace.turn(host)
            try:
                return await self._attempt(request, url, guarded=guarded)
            except TransientError as failure:
                wait_s = failure.wait_s
                if wait_s is None:
                    wait_s = backoff(attempt, first_s=self._first_backoff_s)
                if attempt == self._web.attempts or wait_s > LONGEST_WAIT_S:
                    raise _final(host, failure, attempt) from None
                _logger.info("request failed host=%s attempt=%d %s", host, attempt, failure)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(self, request: WebRequest, url: URL, *, guarded: bool) -> WebResponse:
        host = checked_host(url)
        try:
            async with self._sessions[guarded].request(
                request.method,
                url,
                data=request.body or None,
                headers={**request.headers, **request.secret_headers},
                allow_redirects=False,
            ) as response:
                body = await self._body(response, host)
        except TimeoutError:
            message = f"did not answer within {self._web.timeout_s:g} s"
            raise TransientError(message, is_timeout=True) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublicError):
                raise PermissionError(f"{host} may not be read: {error.os_error}") from None
            raise TransientError(f"could not be reached ({error.os_error})") from None
        except aiohttp.InvalidURL:
            raise ValueError(f"{str(url)!r} is not an address") from None
        except aiohttp.ClientError as error:
            raise TransientError(f"broke the connection ({type(error).__name__})") from None
        _raise_for_busy(response)
        return _response(response, _without_secrets(body, request))

    async def _body(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        limit = self._web.max_response_mib << 20
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise ValueError(
                    f"the answer of {host} is larger than {self._web.max_response_mib} MiB"
                )
        return bytes(body)


def _raise_for_busy(response: aiohttp.ClientResponse) -> None:
    if response.status == _TOO_MANY_REQUESTS or response.status >= 500:
        wait_s = retry_after(response.headers.get("Retry-After"), now=time.time())
        raise TransientError(f"answered HTTP {response.status}", wait_s=wait_s)


def _response(response: aiohttp.ClientResponse, body: bytes) -> WebResponse:
    is_redirect = response.status in _REDIRECTS
    return WebResponse(
        status=response.status,
        url=str(response.url),
        content_type=valid_text(response.headers.get("Content-Type", "")),
        body=body,
        location=valid_text(response.headers.get("Location", "")) if is_redirect else "",
    )


def _without_secrets(body: bytes, request: WebRequest) -> bytes:
    """Some services repeat the key in an error; nothing behind this line ever sees it."""
    for secret in request.secrets:
        body = body.replace(secret.encode(), _HIDDEN)
    return body


def _final(host: str, failure: TransientError, attempts: int) -> Exception:
    times = "1 try" if attempts == 1 else f"{attempts} tries"
    pause = ""
    if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
        pause = f" and asks for a pause of {failure.wait_s:.0f} s"
    message = f"{host} {failure}{pause} ({times})"
    return TimeoutError(message) if failure.is_timeout else ValueError(message)
