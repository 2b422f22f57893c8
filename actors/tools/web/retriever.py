r"""The ``search`` tool over a retrieval server of one's own, e.g. of a dense index.

The protocol is that of Search-R1's ``retrieval_server.py`` (github.com/PeterGriffinJin/Search-R1):

    POST /retrieve {"queries": [...], "topk": k, "return_scores": true}
    {"result": [[{"document": {"contents": "\"Title\"\ntext"}, "score": 0.9}, ...]]}

Without scores the documents stand there bare; some servers give ``title`` and ``text``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from yarl import URL

from actors.tools.arguments import cut_text, shown, valid_text
from actors.tools.search.index import NO_RESULTS
from actors.tools.tool import FunctionTool
from actors.tools.web.client import WebClient
from actors.tools.web.service import ServiceAddress, WebService, encoded
from common.config import Search, Service
from common.errors import ConfigError

DEFAULT_SERVICE = "retriever"
"""Table ``[services.NAME]`` of the server where ``tools.search.service`` names none."""

MAX_QUERY_CHARACTERS = 1000
"""A longer query is cut, as that of a local index is."""

_NAME = "the retrieval server"
_PATH = "/retrieve"
_QUOTED = re.compile(r"[\"'“](.*)[\"'”]", re.DOTALL)


class RetrieverSearch(FunctionTool):
    """``search`` by a retrieval server."""

    def __init__(self, search: Search, service: Service, client: WebClient) -> None:
        """Search at the address of ``service``.

        Raises:
            ConfigError: it has none.
        """
        super().__init__(self.search)
        self._search = search
        address = ServiceAddress(
            name=_NAME, url=_address(search, service), key_variable=service.api_key_env
        )
        self._service = WebService(client, address)

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return self._service.variables

    async def search(self, query: str) -> str:
        """Search for pages about the query; gives their text, best page first.

        "No results." where nothing is found.
        """
        text = " ".join(cut_text(query, "query", MAX_QUERY_CHARACTERS).split())
        if not text:
            return NO_RESULTS
        body = {"queries": [text], "topk": self._search.results, "return_scores": True}
        answer = await self._service.post("", encoded(body))
        pages = list(_pages(answer, self._search.max_characters))[: self._search.results]
        return "\n\n".join(pages) or NO_RESULTS

    async def start(self) -> None:
        """Read the key, if there is one."""
        await self._service.start()

    async def close(self) -> None:
        """Give the client back."""
        await self._service.close()


def _address(search: Search, service: Service) -> str:
    """Where to ask: the address as it is, with the usual path where it has none."""
    key = f"services.{search.service or DEFAULT_SERVICE}.base_url"
    if not service.base_url:
        raise ConfigError(
            f"tools.search.provider = 'retriever' needs {key}, the address of the retrieval "
            "server, e.g. http://HOST:8000/retrieve"
        )
    try:
        url = URL(service.base_url)
    except ValueError as error:
        raise ConfigError(f"{key}: {service.base_url!r} is not an address: {error}") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ConfigError(
            f"{key} must be an address like http://HOST:8000/retrieve, got {service.base_url!r}"
        )
    plain = service.base_url.rstrip("/")
    return plain + _PATH if url.path.strip("/") == "" else plain


def _pages(answer: Any, limit: int) -> Iterator[str]:
    """The pages of an answer to one query, each at most ``limit`` characters of title and text.

    Raises:
        ValueError: it is of another shape.
    """
    result = answer.get("result") if isinstance(answer, Mapping) else None
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], list):
        raise ValueError(
            f"{_NAME} answered in an unknown shape: expected {{'result': [[...]]}} with one list "
            f"for one query, got {shown(answer)}"
        )
    for item in result[0]:
        title, text = _document(item)
        title, text = " ".join(title[:limit].split()), text[:limit].strip()
        yield valid_text(text if text.startswith(title) else f"{title}\n{text}")[:limit].rstrip()


def _document(item: Any) -> tuple[str, str]:
    """Title and text of a document, with a score or bare."""
    document = item.get("document", item) if isinstance(item, Mapping) else item
    if isinstance(document, str):
        return _split(document)
    fields = document if isinstance(document, Mapping) else {}
    title, text = fields.get("title"), fields.get("text")
    if isinstance(text, str):
        return _unquoted(title) if isinstance(title, str) else "", text
    if isinstance(contents := fields.get("contents"), str):
        return _split(contents)
    raise ValueError(
        f"{_NAME} answered in an unknown shape: expected a document with 'contents', or with "
        f"'title' and 'text', got {shown(item)}"
    )


def _split(contents: str) -> tuple[str, str]:
    """The first line, which is the title in quotes, and the rest."""
    title, _, text = contents.partition("\n")
    return _unquoted(title), text


def _unquoted(title: str) -> str:
    """A title without the pair of quotes around it."""
    quoted = _QUOTED.fullmatch(title.strip())
    return quoted[1] if quoted else title
