"""The ``search`` tool over a web search service: Serper, Exa or Firecrawl.

The shapes of requests and answers are those of the services' public references:
serper.dev, docs.exa.ai (search), docs.firecrawl.dev (search, version 2).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.tools.arguments import cut_text, shown, valid_text
from actors.tools.search.index import NO_RESULTS
from actors.tools.tool import FunctionTool
from actors.tools.web.client import WebClient
from actors.tools.web.rules import host_of, within
from actors.tools.web.service import ServiceAddress, WebService, encoded
from common.config import Search, Service

MAX_QUERY_CHARACTERS = 2000
"""A longer query is cut; the services refuse it."""

_LONGEST_ADDRESS = 2000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """One page that a service found."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProvider:
    """How to ask one service.

    Attributes:
        address: its public address and usual key variable.
        path: of the request, after the address.
        request: the body that asks for a query, a number of results and characters of each.
        results: what is in the answer, best first.
    """

    address: ServiceAddress
    path: str
    request: Callable[[str, int, int], dict[str, Any]]
    results: Callable[[Mapping[str, Any]], Sequence[SearchResult]]


class WebSearch(FunctionTool):
    """``search`` on the web."""

    def __init__(
        self, search: Search, service: Service, blocked: tuple[str, ...], client: WebClient
    ) -> None:
        """Search with ``search.provider``, which ``service`` may have elsewhere.

        Pages of ``blocked`` domains are not shown.
        """
        super().__init__(self.search)
        self._search = search
        self._blocked = blocked
        self._provider = PROVIDERS[search.provider]
        usual = self._provider.address
        self._service = WebService(
            client,
            ServiceAddress(
                name=usual.name,
                url=service.base_url.rstrip("/") or usual.url,
                key_variable=service.api_key_env or usual.key_variable,
                key_header=usual.key_header,
                key_prefix=usual.key_prefix,
            ),
        )

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return self._service.variables

    async def search(self, query: str) -> str:
        """Search the web; gives title, address and an excerpt of each page, best page first.

        "No results." where nothing is found.
        """
        text = " ".join(cut_text(query, "query", MAX_QUERY_CHARACTERS).split())
        if not text:
            return NO_RESULTS
        body = self._provider.request(text, self._search.results, self._search.max_characters)
        answer = await self._service.post(self._provider.path, encoded(body))
        try:
            found = self._provider.results(_object(answer))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self._provider.address.name} answered in an unknown shape: {shown(error)}"
            ) from None
        return self._text(found)

    async def start(self) -> None:
        """Read the key."""
        await self._service.start()

    async def close(self) -> None:
        """Give the client back."""
        await self._service.close()

    def _text(self, found: Sequence[SearchResult]) -> str:
        allowed = [result for result in found if not self._is_blocked(result)]
        limit = self._search.max_characters
        texts = [
            f"{result.title}\n{result.url}\n{result.snippet}"[:limit].rstrip()
            for result in allowed[: self._search.results]
        ]
        return "\n\n".join(texts) or NO_RESULTS

    def _is_blocked(self, result: SearchResult) -> bool:
        """Whether its domain is; where domains are, also if the address cannot be read."""
        host = host_of(result.url)
        if not self._blocked or (host and not within(host, self._blocked)):
            return False
        _logger.info("search result dropped, its domain is blocked url=%s", shown(result.url))
        return True


def _serper_results(answer: Mapping[str, Any]) -> list[SearchResult]:
    results = [_result(item, "link", "snippet") for item in _items(answer.get("organic"))]
    box = answer.get("answerBox")
    if isinstance(box, Mapping) and box.get("link") and (box.get("answer") or box.get("snippet")):
        results.insert(0, _result({**box, "snippet": box.get("answer") or box["snippet"]}, "link"))
    return results


def _exa_results(answer: Mapping[str, Any]) -> list[SearchResult]:
    return [_result(item, "url", "text") for item in _items(answer["results"])]


def _firecrawl_results(answer: Mapping[str, Any]) -> list[SearchResult]:
    data = answer["data"]
    found = data if isinstance(data, list) else _object(data).get("web")
    return [_result(item, "url", "description") for item in _items(found)]


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _items(found: Any) -> list[Mapping[str, Any]]:
    """The results of a list, or none; what is no result in it is left out.

    Raises:
        TypeError: it is neither a list nor null.
    """
    if not isinstance(found, list | None):
        raise TypeError(f"expected a list of results, got {type(found).__name__}")
    return [item for item in found or () if isinstance(item, Mapping)]


def _result(item: Mapping[str, Any], url: str, snippet: str = "snippet") -> SearchResult:
    return SearchResult(
        title=" ".join(_told(item.get("title")).split()),
        url=_told(item[url])[:_LONGEST_ADDRESS],
        snippet=_told(item.get(snippet)).strip(),
    )


def _told(value: Any) -> str:
    return valid_text(value) if isinstance(value, str) else ""


PROVIDERS: Mapping[str, SearchProvider] = {
    "serper": SearchProvider(
        address=ServiceAddress(
            name="Serper",
            url="https://google.serper.dev",
            key_variable="SERPER_API_KEY",
            key_header="X-API-KEY",
            key_prefix="",
        ),
        path="/search",
        request=lambda query, results, characters: {"q": query, "num": max(results, 10)},
        results=_serper_results,
    ),
    "exa": SearchProvider(
        address=ServiceAddress(
            name="Exa",
            url="https://api.exa.ai",
            key_variable="EXA_API_KEY",
            key_header="x-api-key",
            key_prefix="",
        ),
        path="/search",
        request=lambda query, results, characters: {
            "query": query,
            "type": "auto",
            "numResults": results,
            "contents": {"text": {"maxCharacters": characters}},
        },
        results=_exa_results,
    ),
    "firecrawl": SearchProvider(
        address=ServiceAddress(
            name="Firecrawl",
            url="https://api.firecrawl.dev",
            key_variable="FIRECRAWL_API_KEY",
        ),
        path="/v2/search",
        request=lambda query, results, characters: {"query": query, "limit": results},
        results=_firecrawl_results,
    ),
}
"""Web search services by their names in ``tools.search.provider``."""
