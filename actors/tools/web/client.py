"""The one way of the tools to the network: address rules and the disk cache over the transport.

Errors are ValueError, TimeoutError or PermissionError, which reach the cell as they are; they name
the host and what happened, and never a key.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

from yarl import URL

from actors.tools.web.cache import ResponseCache
from actors.tools.web.messages import WebRequest, WebResponse
from actors.tools.web.rules import PageRules, parse_url, redirected
from actors.tools.web.transport import WebTransport
from common.config import Web
from common.errors import ConfigError

MAX_REDIRECTS = 5
_logger = logging.getLogger(__name__)

Fetch = Callable[[], Awaitable[WebResponse]]
Keep = Callable[[WebResponse], bool]


class WebClient:
    """Shared by all web tools of a process; each starts and closes it."""

    def __init__(self, web: Web, *, first_backoff_s: float = 0.5) -> None:
        """Describe the client; ``start`` opens it.

        Args:
            web: limits and cache.
            first_backoff_s: pause before the second attempt; doubled for each further one.

        Raises:
            ConfigError: record or replay without a cache.
        """
        if web.cache_mode != "fill" and not web.cache:
            raise ConfigError(
                f"tools.web.cache_mode = '{web.cache_mode}' needs a folder in tools.web.cache"
            )
        self._mode = web.cache_mode
        self._cache = ResponseCache(Path(web.cache)) if web.cache else None
        self._transport = WebTransport(web, first_backoff_s=first_backoff_s)
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._users = 0

    @property
    def replays(self) -> bool:
        """Whether it never touches the network, so that no key is needed."""
        return self._mode == "replay"

    async def start(self) -> None:
        """Open it for one more user."""
        self._users += 1
        if self._users == 1:
            await self._transport.start()

    async def close(self) -> None:
        """Close it when its last user did."""
        self._users -= 1
        if self._users == 0:
            await self._transport.close()

    async def send(self, request: WebRequest, *, keep: Keep) -> WebResponse:
        """Send a request to a service of the configuration; redirects are not followed.

        Args:
            request: what to send.
            keep: whether an answer may go into the cache.

        Raises:
            TimeoutError: no attempt was answered in time.
            ValueError: no attempt succeeded, or the answer is too large.
        """
        url = URL(request.url)
        return await self._cached(
            request, lambda: self._transport.send(request, url, guarded=False), keep
        )

    async def get_page(self, address: str, rules: PageRules) -> WebResponse:
        """Fetch an address that an agent chose; every redirect is checked as the address is.

        Raises:
            PermissionError: the rules forbid it, or it is not on the public internet.
            TimeoutError: no attempt was answered in time.
            ValueError: not an address, no attempt succeeded, or the answer is too large.
        """
        url = parse_url(address)
        rules.check(url)
        request = WebRequest(method="GET", url=str(url))
        response = await self._cached(request, lambda: self._follow(request, url, rules), _any)
        rules.check(parse_url(response.url))
        return response

    async def _follow(self, request: WebRequest, url: URL, rules: PageRules) -> WebResponse:
        for _ in range(MAX_REDIRECTS + 1):
            rules.check(url)
            response = await self._transport.send(request, url, guarded=not rules.is_trusted(url))
            if not response.location:
                return response
            url = redirected(url, response.location)
        raise ValueError(f"{request.url} redirects more than {MAX_REDIRECTS} times")

    async def _cached(self, request: WebRequest, fetch: Fetch, keep: Keep) -> WebResponse:
        if self._cache is None:
            return await fetch()
        if self._mode == "record":
            return await self._kept(self._cache, request, fetch, keep)
        path = await asyncio.to_thread(self._cache.path, request)
        lock = self._locks.setdefault(path, asyncio.Lock())
        async with lock:  # the same request of several episodes is fetched once
            found = await self._load(self._cache, request)
            if found is not None:
                return found
            if self.replays:
                raise ValueError(
                    f"{request.method} {request.url} is not in the cache, and tools.web.cache_mode "
                    "is 'replay'; record it first"
                )
            return await self._kept(self._cache, request, fetch, keep)

    async def _load(self, cache: ResponseCache, request: WebRequest) -> WebResponse | None:
        try:
            return await asyncio.to_thread(cache.load, request)
        except ValueError as error:
            if self.replays:
                raise
            _logger.warning("fetched again: %s", error)
            return None

    async def _kept(
        self, cache: ResponseCache, request: WebRequest, fetch: Fetch, keep: Keep
    ) -> WebResponse:
        response = await fetch()

        def store() -> None:
            if keep(response):
                cache.store(request, response)

        try:
            await asyncio.to_thread(store)
        except OSError as error:
            _logger.warning("cache entry of %s not written: %s", request.url, error)
        return response


def _any(response: WebResponse) -> bool:
    """Pages are kept with whatever status they have, so that a replay is the same."""
    return True
