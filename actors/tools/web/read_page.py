"""The ``read_page`` tool: the text of a web page, fetched here or by the Jina Reader service."""

from typing import Protocol

from actors.tools.arguments import valid_text
from actors.tools.documents.kinds import document_kind
from actors.tools.documents.reader import DocumentReader
from actors.tools.excerpts import TextMemory, excerpt
from actors.tools.tool import FunctionTool
from actors.tools.web.client import WebClient
from actors.tools.web.messages import WebResponse
from actors.tools.web.rules import ANY_DOMAIN, PageRules, parse_url
from actors.tools.web.service import ServiceAddress, WebService, encoded
from common.config import Pages, Service

JINA_URL = "https://r.jina.ai"
JINA_KEY = "JINA_API_KEY"

KEPT_CHARACTERS = 32 << 20
"""Texts of pages read last, in total, so that reading on does not fetch a page again."""

_LONGEST_CHARSET = 40


class PageSource(Protocol):
    """Where the text of a page comes from."""

    @property
    def rules(self) -> PageRules:
        """Which pages may be asked for."""
        ...

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        ...

    async def start(self) -> None:
        """Open what it needs."""
        ...

    async def text(self, url: str) -> str:
        """Address, title and text of a page."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class ReadPage(FunctionTool):
    """``read_page``: a page in parts, with a memory of the pages read last."""

    def __init__(self, pages: Pages, source: PageSource) -> None:
        """Read pages from ``source``."""
        super().__init__(self.read_page)
        self._limit = pages.max_characters
        self._source = source
        self._known = TextMemory(KEPT_CHARACTERS)

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return self._source.variables

    async def read_page(self, url: str, start: int = 0, max_characters: int | None = None) -> str:
        """Read a web page or PDF as text from character ``start``: address, title, then the text.

        A long page is shown in parts; the note at the end says where to go on.
        """
        address = parse_url(url)
        self._source.rules.check(address)
        key = str(address)
        text = self._known.get(key) if start else None
        if text is None:
            text = await self._source.text(key)
            self._known.put(key, text)
        return excerpt(text, start, self._limit, most=max_characters)

    async def start(self) -> None:
        """Open the source."""
        await self._source.start()

    async def close(self) -> None:
        """Close the source."""
        await self._source.close()


class LocalPages:
    """Pages that are fetched and extracted here."""

    variables: tuple[str, ...] = ()

    def __init__(self, rules: PageRules, client: WebClient, reader: DocumentReader) -> None:
        """Read pages that ``rules`` allow."""
        self.rules = rules
        self._client = client
        self._reader = reader

    async def start(self) -> None:
        """Open client and reader."""
        await self._client.start()
        await self._reader.start()

    async def close(self) -> None:
        """Give client and reader back."""
        await self._reader.close()
        await self._client.close()

    async def text(self, url: str) -> str:
        """Address, title and text of a page."""
        response = await self._client.get_page(url, self.rules)
        if not response.ok:
            raise ValueError(f"{response.url} answered HTTP {response.status}")
        text = await self._document(response)
        if not text:
            raise ValueError(f"{response.url} holds no text; it may need a browser")
        return f"{response.url}\n\n{text}"

    async def _document(self, response: WebResponse) -> str:
        kind = document_kind(
            response.body, name=response.url.partition("?")[0], media_type=response.content_type
        )
        try:
            return await self._reader.read(response.body, kind, _charset(response.content_type))
        except ValueError as error:
            raise ValueError(f"{response.url} cannot be read: {error}") from None


class JinaPages:
    """Pages through the Jina Reader service (github.com/jina-ai/reader)."""

    def __init__(self, service: Service, blocked: tuple[str, ...], client: WebClient) -> None:
        """Read everything but ``blocked``; the service does the fetching."""
        self.rules = PageRules(allowed=(ANY_DOMAIN,), blocked=blocked)
        address = ServiceAddress(
            name="Jina Reader",
            url=service.base_url.rstrip("/") or JINA_URL,
            key_variable=service.api_key_env or JINA_KEY,
        )
        self._service = WebService(client, address)

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return self._service.variables

    async def start(self) -> None:
        """Read the key."""
        await self._service.start()

    async def close(self) -> None:
        """Give the client back."""
        await self._service.close()

    async def text(self, url: str) -> str:
        """Address, title and text of a page."""
        answer = await self._service.post("/", encoded({"url": url}))
        try:
            data = answer["data"]
            told = (data["url"], data["title"], data["content"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"Jina Reader answered in an unknown shape: {error!r}") from None
        if not all(isinstance(part, str | None) for part in told):
            raise ValueError("Jina Reader answered in an unknown shape: expected three texts")
        found, title, content = (valid_text(part or "") for part in told)
        self.rules.check(parse_url(found))
        return f"{found}\n\n{title}\n\n{content}".strip()


def _charset(content_type: str) -> str:
    for part in content_type.split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "charset" and value.isascii():
            return value.strip("\"' ")[:_LONGEST_CHARSET]
    return ""
