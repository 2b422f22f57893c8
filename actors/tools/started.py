"""The shared tools of a process, started together and closed together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType

from actors.tools.catalogue import make_tools
from actors.tools.names import check_tools
from actors.tools.tool import Tool
from common.config import Config
from common.errors import LZeroError, PluginError

CLOSE_S = 30.0
"""A tool that needs longer to close is left behind."""

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def started_tools(
    config: Config,
    corpora: Mapping[str, str] | None = None,
    *,
    search_disabled: bool = False,
    own: Mapping[str, Tool] = MappingProxyType({}),
) -> AsyncIterator[dict[str, Tool]]:
    """The shared tools of the configuration, started, and closed again at the end.

    Args:
        config: names the tools.
        corpora: index file of each corpus name that a task may have; those of the training run
            unless given.
        search_disabled: ``search`` finds nothing (a control experiment).
        own: further tools by name, which the configuration does not know how to make.

    Raises:
        ConfigError, MachineError, InputError, PluginError: a tool cannot work; says what to do.
    """
    tools = make_tools(config, corpora or run_corpora(config), search_disabled=search_disabled)
    tools |= own
    async with AsyncExitStack() as stack:
        for name, tool in tools.items():
            stack.push_async_callback(_close, name, tool)
            await _start(name, tool)
        check_tools({name: tool.specs for name, tool in tools.items()})
        yield tools


async def _start(name: str, tool: Tool) -> None:
    try:
        await tool.start()
    except LZeroError:
        raise
    except Exception as error:  # a user's tool may raise anything
        raise PluginError(
            f"agent.tools: {name!r} could not start: {type(error).__name__}: {error}"
        ) from error


async def _close(name: str, tool: Tool) -> None:
    """Close it; what goes wrong then is no reason to lose what was done before."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await tool.close()
    except Exception as error:  # a user's tool may raise anything
        _logger.warning("agent.tools: %r could not be closed: %r", name, error)


def run_corpora(config: Config) -> dict[str, str]:
    """The index file of each corpus name that a task of the run may have."""
    train, during = config.tasks.train_corpus, config.evaluation.during
    return {"train": train, "heldout": (during.corpus if during else "") or train}
