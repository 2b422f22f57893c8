"""The tools of the notebook that run on the host."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.ranges import DAY_S, MANY, Range, Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(Section):
    """The ``search`` tool: a local index (SQLite FTS5, BM25) or a web search service."""

    provider: Literal["local", "serper", "exa", "firecrawl"] = "local"
    match: Literal["all", "any"] = "all"
    """``local``: whether a page must hold all words of a query or any of them."""
    results: Annotated[int, Range("pages", least=1, most=1000)] = 1
    """Pages returned, best first."""
    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26)] = 1000
    """Longest text returned for one page."""
    disabled: bool = False
    """Answer every query with "No results." (a control experiment)."""
    base_url: str = ""
    """Web providers: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """Web providers: environment variable of the actor with the key; empty for the provider's
    usual one, e.g. SERPER_API_KEY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Web(Section):
    """How tools reach the network: one client for all of them, on the host."""

    timeout_s: Annotated[float, Range("s", above=0, most=DAY_S)] = 20.0
    """One attempt."""
    attempts: Annotated[int, Range("tries", least=1, most=100)] = 3
    """Tries per request, with exponential backoff, on time-outs, 429 and 5xx."""
    requests_per_s: Annotated[float, Range("requests per s", least=0, most=1e6)] = 5.0
    """Rate limit per host and actor process; 0 for none."""
    max_response_mib: Annotated[int, Range("MiB", least=1, most=65536)] = 8
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

    provider: Literal["local", "jina"] = "local"
    """``local``: fetch and extract the article here; ``jina``: the Jina Reader service."""
    allowed_domains: tuple[str, ...] = ()
    """``local``: only these domains and their subdomains may be read; "*" allows any public
    address."""
    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26)] = 20000
    """Longest part of a page that one call returns."""
    base_url: str = ""
    """``jina``: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """``jina``: environment variable of the actor with the key; empty for JINA_API_KEY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vision(Section):
    """The ``visual_qa`` tool: an OpenAI-compatible vision language model."""

    base_url: str = ""
    """Address of the server with its version, e.g. ``http://127.0.0.1:8000/v1``."""
    model: str = ""
    """Name of the model there."""
    api_key_env: str = "VISION_API_KEY"
    """Environment variable of the actor with the key; empty for a server that needs none."""
    max_tokens: Annotated[int, Range("tokens", least=1, most=MANY)] = 512
    """Longest answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files(Section):
    """The ``inspect_file`` tool, for the files attached to a task."""

    max_characters: Annotated[int, Range("characters", least=1, most=1 << 26)] = 20000
    """Longest part of a file that one call returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer(Section):
    """A Model Context Protocol server: a command to start, or an address to connect to."""

    AT: ClassVar[str] = "mcp.servers"

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
class Mcp(Section):
    """MCP servers by name; tool ``mcp.NAME`` in ``agent.tools`` offers all tools of one."""

    servers: dict[str, McpServer] = field(default_factory=dict)
