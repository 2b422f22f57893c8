"""The real agent in both of its forms: over a chat server, and in token ids as in training."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from actors.agent.events import Episode, EpisodeListener
from actors.agent.loop import AgentLoop
from actors.agent.notebook_agent import NotebookAgent
from actors.agent.prompt import load_template
from actors.agent.token_conversation import TokenConversation
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.policy import PolicyClient
from actors.tokenizer import FileTokenizer
from actors.tools.started import started_tools
from benchmarks.agent.token_route import HttpLine
from common.chat import ChatRenderer
from common.config import Config
from common.wire.records import Task

Runs = Callable[[Task, EpisodeListener | None], Awaitable[Episode]]
"""Runs one episode."""


@asynccontextmanager
async def chat_agent(config: Config, url: str) -> AsyncIterator[Runs]:
    """The agent of ``lzero agent``, which sees text and sends chat messages."""
    agent = NotebookAgent(base_url=f"{url}/v1", config=config, tools=config.agent.tools)

    async def run(task: Task, listener: EpisodeListener | None) -> Episode:
        return await agent.run_async(task.question, listener=listener)

    async with agent:
        yield run


@asynccontextmanager
async def token_agent(config: Config, url: str, model: Path) -> AsyncIterator[Runs]:
    """The agent of training: one turn in token ids, sampled by the policy server's own route."""
    tokenizer = FileTokenizer(model)
    renderer = ChatRenderer(tokenizer)
    kernels = KernelPool(make_launcher(config.kernel), idle=config.kernel.idle)
    await kernels.start()
    try:
        async with (
            started_tools(config) as tools,
            PolicyClient(
                [url], HttpLine, timeout_s=config.agent.episode_timeout_s, attempts=2
            ) as policy,
        ):
            loop = AgentLoop(
                agent=config.agent,
                kernels=kernels,
                tools=tools,
                prompt=load_template(config.agent.system_prompt),
                cell_timeout_s=config.kernel.cell_timeout_s,
            )

            async def run(task: Task, listener: EpisodeListener | None) -> Episode:
                conversation = TokenConversation(
                    policy=policy,
                    renderer=renderer,
                    tokenizer=tokenizer,
                    limit=config.model.max_context,
                    temperature=config.agent.temperature,
                    whole_turns=config.agent.mode == "direct",
                )
                return await loop.run(task, conversation, listener)

            yield run
    finally:
        await kernels.close()
