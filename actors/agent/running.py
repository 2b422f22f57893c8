"""What a stand-alone agent holds while it is open: connection, kernels, tools and the loop."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from actors.agent.chat.client import ChatClient
from actors.agent.chat.conversation import ChatConversation
from actors.agent.events import Episode, EpisodeListener
from actors.agent.loop import AgentLoop
from actors.agent.prompt import load_template
from actors.agent.stand_alone import with_limits_of, with_options
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.tools.started import started_tools
from actors.tools.tool import Tool
from common.config import Config
from common.errors import MachineError
from common.wire.records import Task

REQUEST_TIMEOUT_S = 300.0
"""One request to the server, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerAddress:
    """Which model of which server; empty fields as in ``ChatClient``."""

    base_url: str = ""
    model: str = ""
    api_key: str = ""


class RunningAgent:
    """Runs episodes with what was started for it."""

    def __init__(self, client: ChatClient, loop: AgentLoop, config: Config) -> None:
        """Ask ``client`` in contexts of ``config.model.max_context`` tokens."""
        self._client, self._loop, self._config = client, loop, config

    async def run(self, task: Task, listener: EpisodeListener | None) -> Episode:
        """Run one episode; never raises but for cancellation."""
        conversation = ChatConversation(
            self._client,
            limit=self._config.model.max_context,
            temperature=self._config.agent.temperature,
            direct=self._config.agent.mode == "direct",
        )
        return await self._loop.run(task, conversation, listener)


@asynccontextmanager
async def running_agent(
    config: Config, address: ServerAddress, own_tools: Mapping[str, Tool]
) -> AsyncIterator[RunningAgent]:
    """Start everything, the server first: it is what most often is not there.

    Args:
        config: of the agent; its context is cut to what the server's model takes.
        address: the server.
        own_tools: tools in ``agent.tools`` that the configuration does not know how to make.

    Raises:
        PolicyServerError, ConfigError, InputError, MachineError, PluginError: something cannot
            be started; says what to do.
    """
    async with AsyncExitStack() as stack:
        prompt = load_template(config.agent.system_prompt)
        client = _client(config, address)
        stack.push_async_callback(client.close)
        config = with_limits_of(config, await client.describe())
        loop = AgentLoop(
            agent=config.agent,
            tools=await _tools(config, own_tools, stack),
            kernels=await _kernels(config, stack),
            prompt=prompt,
            cell_timeout_s=config.kernel.cell_timeout_s,
            output_bytes=config.kernel.output_bytes,
        )
        yield RunningAgent(client, loop, config)


def _client(config: Config, address: ServerAddress) -> ChatClient:
    return ChatClient(
        address.base_url,
        model=address.model,
        api_key=address.api_key,
        timeout_s=min(REQUEST_TIMEOUT_S, config.agent.episode_timeout_s),
    )


async def _tools(
    config: Config, own_tools: Mapping[str, Tool], stack: AsyncExitStack
) -> dict[str, Tool]:
    named = tuple(name for name in config.agent.tools if name not in own_tools)
    started = started_tools(with_options(config, tools=named), own=own_tools)
    return await stack.enter_async_context(started)


async def _kernels(config: Config, stack: AsyncExitStack) -> KernelPool | None:
    if config.agent.mode == "direct":
        return None
    if threading.current_thread() is not threading.main_thread():
        raise MachineError(
            "the notebook's kernels must be started from the main thread, got thread "
            f"{threading.current_thread().name!r}: the system kills them when the thread that "
            "started them ends; run the agent in the main thread or in a process of its own"
        )
    launcher = make_launcher(config.kernel)
    kernels = KernelPool(launcher, idle=config.kernel.idle)
    stack.push_async_callback(kernels.close)
    await kernels.start()
    return kernels
