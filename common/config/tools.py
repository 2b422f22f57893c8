"""The tools of the notebook that run on the host."""

from dataclasses import dataclass, field
from typing import Literal

from common.config.checks import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """The ``search`` tool: a local index (SQLite FTS5, BM25) or a web search service."""

    provider: Literal["local", "serper", "exa", "firecrawl"] = "local"
    match: Literal["all", "any"] = "all"
    """``local``: whether a page must hold all words of a query or any of them."""
    results: int = 1
    """Pages returned, best first."""
    max_characters: int = 1000
    """Longest text returned for one page."""
    disabled: bool = False
    """Answer every query with "No results." (a control experiment)."""
    base_url: str = ""
    """Web providers: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """Web providers: environment variable of the actor with the key; empty for the provider's
    usual one, e.g. SERPER_API_KEY."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("results", "max_characters"):
            value = getattr(self, name)
            require(value >= 1, f"search.{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Web:
    """How tools reach the network: one client for all of them, on the host."""

    timeout_s: float = 20.0
    """One attempt."""
    attempts: int = 3
    """Tries per request, with exponential backoff, on time-outs, 429 and 5xx."""
    requests_per_s: float = 5.0
    """Rate limit per host and actor process; 0 for none."""
    max_response_mib: int = 8
    cache: str = ""
    """Folder of the disk cache; empty for none."""
    cache_mode: Literal["fill", "record", "replay"] = "fill"
    """``fill``: use what is there, fetch and keep the rest; ``record``: always fetch and keep;
    ``replay``: never touch the network, a missing entry is an error in the cell."""
    blocked_domains: tuple[str, ...] = ()
    """Never fetched and never shown in results, with their subdomains (data set mirrors)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("attempts", "max_response_mib"):
            value = getattr(self, name)
            require(value >= 1, f"web.{name} must be at least 1, got {value}")
        require(self.timeout_s > 0, f"web.timeout_s must be above 0, got {self.timeout_s}")
        require(
            self.requests_per_s >= 0,
            f"web.requests_per_s must be at least 0, got {self.requests_per_s}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages:
    """The ``read_page`` tool."""

    provider: Literal["local", "jina"] = "local"
    """``local``: fetch and extract the article here; ``jina``: the Jina Reader service."""
    allowed_domains: tuple[str, ...] = ()
    """``local``: only these domains and their subdomains may be read; "*" allows any public
    address."""
    max_characters: int = 20000
    """Longest part of a page that one call returns."""
    base_url: str = ""
    """``jina``: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """``jina``: environment variable of the actor with the key; empty for JINA_API_KEY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vision:
    """The ``visual_qa`` tool: an OpenAI-compatible vision language model."""

    base_url: str = ""
    """Address of the server with its version, e.g. ``http://127.0.0.1:8000/v1``."""
    model: str = ""
    """Name of the model there."""
    api_key_env: str = "VISION_API_KEY"
    """Environment variable of the actor with the key; empty for a server that needs none."""
    max_tokens: int = 512
    """Longest answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The ``inspect_file`` tool, for the files attached to a task."""

    max_characters: int = 20000
    """Longest part of a file that one call returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer:
    """A Model Context Protocol server: a command to start, or an address to connect to."""

    command: tuple[str, ...] = ()
    """Program and arguments; speaks over its standard streams."""
    environment: tuple[str, ...] = ()
    """Names of variables passed on to the program; of the actor's others it sees only HOME,
    LOGNAME, PATH, SHELL, TERM and USER."""
    url: str = ""
    """Address of a server that speaks streamable HTTP."""
    api_key_env: str = ""
    """``url``: environment variable of the actor with a bearer token; empty for none."""
    start_timeout_s: float = 60.0
    """How long it may take to start and to list its tools."""
    timeout_s: float = 30.0
    """How long one call may take."""

    def __post_init__(self) -> None:
        """Check that there is exactly one way to reach it."""
        require(
            bool(self.command) != bool(self.url),
            "an MCP server needs either command or url, got " + ("both" if self.url else "neither"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mcp:
    """MCP servers by name; tool ``mcp.NAME`` in ``agent.tools`` offers all tools of one."""

    servers: dict[str, McpServer] = field(default_factory=dict)
