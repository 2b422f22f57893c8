"""Makes the tools that all episodes of a process share, by their names in the configuration."""

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from actors.kernels.limits.host_uids import HostUids
from actors.tools.documents.inspect_file import InspectFile
from actors.tools.documents.reader import DocumentReader
from actors.tools.names import EPISODE_TOOLS, check_name, check_tools
from actors.tools.search.local import DisabledSearch, LocalSearch
from actors.tools.tool import FunctionTool, Tool, UserTool
from actors.tools.visual_qa import VisualQa
from actors.tools.web.client import WebClient
from actors.tools.web.read_page import JinaPages, LocalPages, ReadPage
from actors.tools.web.retriever import DEFAULT_SERVICE, RetrieverSearch
from actors.tools.web.rules import PageRules
from actors.tools.web.search import WebSearch
from common.config import Config, McpServer
from common.errors import ConfigError
from common.plugins import is_plugin, load_plugin

_KEY = "agent.tools"


def make_tools(
    config: Config, corpora: Mapping[str, str], *, search_disabled: bool = False
) -> dict[str, Tool]:
    """One tool for each name in ``agent.tools`` that is not a tool of the episode, not started.

    Args:
        config: the configuration of the run.
        corpora: index file of each corpus name that a task may have; empty for no corpus.
        search_disabled: ``search`` finds nothing, whatever its provider (a control experiment).

    Raises:
        ConfigError: a name is unknown, its section of the configuration cannot work, or a function
            would replace another, or something else of the notebook.
    """
    tools = config.tools
    client = WebClient(tools.web)
    reader = DocumentReader(
        unsafe_no_sandbox=config.kernel.minimum_level == "unsafe",
        uids=HostUids(config.kernel.first_uid, config.kernel.uids),
    )
    rules = PageRules(allowed=tools.pages.allowed_domains, blocked=tools.web.blocked_domains)
    makers: dict[str, Callable[[], Tool]] = {
        "search": lambda: _search(config, corpora, client, disabled=search_disabled),
        "read_page": lambda: _read_page(config, rules, client, reader),
        "inspect_file": lambda: InspectFile(tools.files, reader),
        "visual_qa": lambda: VisualQa(
            tools.vision, config.service(tools.vision.service), rules, client
        ),
    }
    makers.update(
        (f"mcp.{name}", functools.partial(_mcp, name, server)) for name, server in tools.mcp.items()
    )
    names = [name for name in config.agent.tools if name not in EPISODE_TOOLS]
    made = {name: _make(name, makers) for name in dict.fromkeys(names)}
    check_tools({n: tool.specs for n, tool in made.items() if isinstance(tool, FunctionTool)})
    return made


def missing_variables(tools: Mapping[str, Tool]) -> dict[str, tuple[str, ...]]:
    """Environment variables that tools need and this process lacks, by the name of the tool."""
    wanted = {name: getattr(tool, "variables", ()) for name, tool in tools.items()}
    missing = {
        name: tuple(variable for variable in variables if not os.environ.get(variable, "").strip())
        for name, variables in wanted.items()
    }
    return {name: variables for name, variables in missing.items() if variables}


def _make(name: str, makers: Mapping[str, Callable[[], Tool]]) -> Tool:
    if is_plugin(name):
        return _plugin(name)
    if name not in makers:
        raise ConfigError(_unknown(name, [*makers, *EPISODE_TOOLS]))
    return makers[name]()


def _search(
    config: Config, corpora: Mapping[str, str], client: WebClient, *, disabled: bool
) -> Tool:
    search = config.tools.search
    if disabled:
        return DisabledSearch()
    if search.provider == "local":
        return LocalSearch(search, corpora)
    if search.provider == "retriever":
        return _retriever(config)
    service = config.service(search.service)
    return WebSearch(search, service, config.tools.web.blocked_domains, client)


def _retriever(config: Config) -> Tool:
    """A server of the user's own, which nobody has to be gentle with: without a rate limit."""
    search, web = config.tools.search, replace(config.tools.web, requests_per_s=0.0)
    usual = DEFAULT_SERVICE if DEFAULT_SERVICE in config.services else ""
    return RetrieverSearch(search, config.service(search.service or usual), WebClient(web))


def _read_page(config: Config, rules: PageRules, client: WebClient, reader: DocumentReader) -> Tool:
    pages = config.tools.pages
    if pages.provider == "jina":
        service = config.service(pages.service)
        return ReadPage(pages, JinaPages(service, rules.blocked, client))
    if not rules.allowed:
        raise ConfigError(
            f"{_KEY} has 'read_page', so tools.pages.allowed_domains must list the domains that "
            'may be read; "*" allows every public one'
        )
    return ReadPage(pages, LocalPages(rules, client, reader))


def _mcp(name: str, server: McpServer) -> Tool:
    from actors.tools.mcp.tool import McpTool  # the SDK takes a while to import

    check_name(name, f"MCP server [tools.mcp.{name}]")
    return McpTool(name, server)


def _plugin(name: str) -> Tool:
    """A user's tool: a class, an object with the interface, or a function."""
    found: Any = load_plugin(name, key=_KEY)
    try:
        if inspect.isclass(found):
            found = found()
        if isinstance(found, FunctionTool):
            return found
        return UserTool(found, name) if isinstance(found, Tool) else FunctionTool(found)
    except (Exception, SystemExit) as error:  # a user's class may raise anything
        raise ConfigError(
            f"{_KEY}: {name!r} is neither a tool nor a function that can be one: "
            f"{type(error).__name__}: {error}"
        ) from error


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known tools: {', '.join(sorted(known))}"
    return f"{_KEY}: unknown tool '{name}'; {hint} (your own: package.module:name)"
