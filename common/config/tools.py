"""The tools of the notebook that run on the host."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.ranges import DAY_S, FIXED, MANY, Range, Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(Section):
    """The ``search`` tool: a local index (SQLite FTS5, BM25), or a server that searches."""

    AT: ClassVar[str] = "tools.search"

    provider: Literal["local", "retriever", "serper", "exa", "firecrawl"] = "local"
    """An index of your own (docs/tasks.md), a retrieval server of your own, or a service on the web
    (docs/tools.md)."""
    match: Literal["all", "any"] = "any"
    """``local``: whether a page must hold all words of a query or any of them."""
    title_weight: Annotated[float, Range("times", least=0, most=1e6)] = 10.0
    """``local``: what a word in a title is worth beside one in the text. Above 1, a page whose
    title is the query comes first."""
    results: Annotated[int, Range("pages", least=1, most=1000)] = 5
    """Pages returned, best first."""
    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26)] = 1000
    """Longest text returned for one page."""
    service: str = ""
    """Web providers: table ``[services.NAME]`` with another address or key; empty for the
    provider's public address and the key in its usual variable, e.g. SERPER_API_KEY. ``retriever``:
    table of the server; empty for ``[services.retriever]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Web(Section):
    """How tools reach the network: one client for all of them, on the host."""

    AT: ClassVar[str] = "tools.web"

    timeout_s: Annotated[float, Range("s", above=0, most=DAY_S), FIXED] = 20.0
    """One attempt."""
    attempts: Annotated[int, Range("tries", least=1, most=100), FIXED] = 3
    """Tries per request, with exponential backoff, on time-outs, 429 and 5xx."""
    requests_per_s: Annotated[float, Range("requests per s", least=0, most=1e6)] = 5.0
    """Rate limit per host and actor process; 0 for none."""
    max_response_mib: Annotated[int, Range("MiB", least=1, most=65536), FIXED] = 8
    """Largest answer that is read; a longer one is an error."""
    cache: str = ""
    """Folder of the disk cache; empty for none."""
    cache_mode: Literal["fill", "record", "replay"] = "fill"
    """``fill``: use what is there, fetch and keep the rest; ``record``: always fetch and keep;
    ``replay``: never touch the network, a missing entry is an error in the cell."""
    blocked_domains: tuple[str, ...] = ()
    """Never fetched and never shown in results, with their subdomains (data set mirrors)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages(Section):
    """The ``read_page`` tool."""

    AT: ClassVar[str] = "tools.pages"

    provider: Literal["local", "jina"] = "local"
    """``local``: fetch and extract the article here; ``jina``: the Jina Reader service."""
    allowed_domains: tuple[str, ...] = ()
    """``local``: only these domains and their subdomains may be read; "*" allows any public
    address."""
    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26), FIXED] = 20000
    """Longest part of a page that one call returns."""
    service: str = ""
    """``jina``: table ``[services.NAME]`` with another address or key; empty for the public
    address and the key in JINA_API_KEY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vision(Section):
    """The ``visual_qa`` tool: an OpenAI-compatible vision language model."""

    AT: ClassVar[str] = "tools.vision"

    service: str = ""
    """Table ``[services.NAME]`` of the server, whose ``base_url`` ends in its version, e.g.
    ``http://HOST:8000/v1``."""
    model: str = ""
    """Name of the model there."""
    max_tokens: Annotated[int, Range("tokens", least=1, most=MANY), FIXED] = 512
    """Longest answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files(Section):
    """The ``inspect_file`` tool, for the files attached to a task."""

    AT: ClassVar[str] = "tools.files"

    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26), FIXED] = 20000
    """Longest part of a file that one call returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer(Section):
    """A Model Context Protocol server: a command to start, or an address to connect to."""

    AT: ClassVar[str] = "tools.mcp"

    command: tuple[str, ...] = ()
    """Program and arguments; speaks over its standard streams."""
    environment: tuple[str, ...] = ()
    """Names of variables passed on to the program; of the actor's others it sees only HOME,
    LOGNAME, PATH, SHELL, TERM and USER."""
    url: str = ""
    """Address of a server that speaks streamable HTTP."""
    api_key_env: str = ""
    """``url``: environment variable of the actor with a bearer token; empty for none."""
    start_timeout_s: Annotated[float, Range("s", above=0, most=DAY_S)] = 60.0
    """How long it may take to start and to list its tools."""
    timeout_s: Annotated[float, Range("s", above=0, most=DAY_S)] = 30.0
    """How long one call may take."""

    def check(self) -> None:
        """There is exactly one way to reach it."""
        require(
            bool(self.command) != bool(self.url),
            "an MCP server needs either command or url, got " + ("both" if self.url else "neither"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools(Section):
    """The tools of the notebook that run on the host; ``agent.tools`` names those in use."""

    search: Search = field(default_factory=Search)
    """The ``search`` tool."""
    web: Web = field(default_factory=Web)
    """How tools reach the network."""
    pages: Pages = field(default_factory=Pages)
    """The ``read_page`` tool."""
    vision: Vision = field(default_factory=Vision)
    """The ``visual_qa`` tool."""
    files: Files = field(default_factory=Files)
    """The ``inspect_file`` tool."""
    mcp: dict[str, McpServer] = field(default_factory=dict)
    """Model Context Protocol servers, one table ``[tools.mcp.NAME]`` each; ``mcp.NAME`` in
    ``agent.tools`` offers all tools of one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service(Section):
    """A service outside: where it is and which key it takes; tools name it by ``service``."""

    AT: ClassVar[str] = "services"

    base_url: str = ""
    """Its address; empty for the public one of the tool's provider."""
    api_key_env: str = ""
    """Environment variable of the actor with the key; empty for the usual one of the tool's
    provider, or for none where there is no provider."""
    model: str = ""
    """``rewards.judge``: name of the model there; empty for the only one that the server has."""
