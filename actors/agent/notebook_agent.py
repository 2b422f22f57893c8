"""The notebook agent as a library: a model behind any OpenAI-compatible server, at work.

    from actors.agent.notebook_agent import NotebookAgent

    with NotebookAgent("qwen3-32b", base_url="http://127.0.0.1:8000/v1") as agent:
        episode = agent.run("How many primes are there below a million?")
        print(episode.answer)

The code that the model writes runs in a sandboxed kernel, as in training (docs/sandbox.md). The
kernels die with the thread that started them, so this works in the main thread only.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from actors.agent.chat_client import ChatClient
from actors.agent.chat_conversation import ChatConversation
from actors.agent.events import Episode, EpisodeListener
from actors.agent.loop import AgentLoop
from actors.agent.prompt import SHIPPED, load_template
from actors.agent.stand_alone import (
    GivenTool,
    make_task,
    sort_tools,
    stand_alone_config,
    with_corpus,
    with_limits_of,
    with_options,
)
from actors.agent.stream import Event, stream_events
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.wiring import started_tools
from common.config import Config
from common.errors import EnvironmentFault
from common.messages import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class _Running:
    """What an open agent holds."""

    client: ChatClient
    loop: AgentLoop
    config: Config
    stack: AsyncExitStack


class NotebookAgent:
    """Answers tasks by working in a notebook.

    Use it in a ``with`` block (or ``async with``) to keep kernels and tools ready between tasks;
    outside of one, each task starts and ends them. Several tasks may run at once.
    """

    def __init__(
        self,
        model: str = "",
        *,
        base_url: str = "",
        api_key: str = "",
        tools: Sequence[GivenTool] | None = None,
        corpus: str | Path = "",
        mode: str | None = None,
        system_prompt: str | None = None,
        max_steps: int | None = None,
        max_action_tokens: int | None = None,
        temperature: float | None = None,
        config: Config | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            model: name of the model; empty takes the only one that the server has.
            base_url: address of the server, e.g. ``http://127.0.0.1:8000/v1``; empty takes
                OPENAI_BASE_URL, else OpenAI's own.
            api_key: empty takes OPENAI_API_KEY where ``base_url`` is empty, else sends none.
            tools: names, plain functions or objects with the interface of ``Tool``. By default
                notepad, planning, context and, with a corpus, search. The final answer is always
                among them.
            corpus: index that ``search`` uses, made by ``lzero index``.
            mode: ``agent``, or ``direct`` for one answer without a notebook.
            system_prompt: ``notebook`` for the shipped template, the path of another, or empty for
                none, as in direct mode.
            max_steps: cells per task.
            max_action_tokens: tokens per action, thoughts included.
            temperature: of the sampling.
            config: everything else; ``stand_alone_config()`` unless given.

        Raises:
            ConfigError: an option, or the signature of a function, cannot be used.
        """
        base = config if config is not None else stand_alone_config()
        if (mode or base.agent.mode) == "direct" and base.agent.system_prompt == SHIPPED:
            system_prompt = system_prompt or ""  # the shipped one is about notebooks
        names, self._own_tools = sort_tools(tools, base.agent.tools, corpus=bool(corpus))
        self._config = with_options(
            with_corpus(base, corpus),
            tools=names,
            mode=mode,
            system_prompt=system_prompt,
            max_steps=max_steps,
            max_action_tokens=max_action_tokens,
            temperature=temperature,
        )
        self._server = {"base_url": base_url, "model": model, "api_key": api_key}
        self._running: _Running | None = None
        self._users = 0
        self._gate = asyncio.Lock()
        self._runner: asyncio.Runner | None = None

    def run(
        self,
        task: str,
        files: Sequence[str | Path] = (),
        *,
        listener: EpisodeListener | None = None,
    ) -> Episode:
        """Work on ``task`` and return what came of it.

        An episode without an answer is no exception: its ``outcome`` and ``failure`` say why.

        Args:
            task: what to do.
            files: copied into the notebook's working folder.
            listener: told what happens while it happens.

        Raises:
            RuntimeError: an event loop runs in this thread already; use ``run_async`` there.
            InputError: a file is missing.
            PolicyServerError: the server cannot be reached, or does not have the model.
            EnvironmentFault: this is not the main thread, or no sandbox can be started.
        """
        _require_no_event_loop()
        asked = make_task(task, files)
        if self._runner is not None:
            return self._runner.run(self._once(asked, listener))
        with asyncio.Runner() as runner:
            return runner.run(self._once(asked, listener))

    async def run_async(
        self,
        task: str,
        files: Sequence[str | Path] = (),
        *,
        listener: EpisodeListener | None = None,
    ) -> Episode:
        """As ``run``, from a coroutine. Several may run at once."""
        return await self._once(make_task(task, files), listener)

    async def stream(self, task: str, files: Sequence[str | Path] = ()) -> AsyncIterator[Event]:
        """Work on ``task`` and yield what happens; the last event is ``Finished``.

        Leaving the iteration early ends the episode; close the iterator then (``aclosing``).
        """
        asked = make_task(task, files)
        async with self:
            async for event in stream_events(lambda listener: self._episode(asked, listener)):
                yield event

    async def __aenter__(self) -> Self:
        """Start what tasks need, unless it is started already."""
        async with self._gate:
            if self._running is None:
                self._running = await self._start()
            self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything that was started, when nobody uses it any more."""
        async with self._gate:
            self._users -= 1
            if self._users == 0 and self._running is not None:
                running, self._running = self._running, None
                await running.stack.aclose()

    def __enter__(self) -> Self:
        """As ``async with``, on an event loop of its own."""
        _require_no_event_loop()
        if self._runner is not None:
            raise RuntimeError("this agent is open already")
        self._runner = asyncio.Runner()
        try:
            self._runner.run(self.__aenter__())
        except BaseException:
            self._close_runner()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything that was started."""
        try:
            if self._runner is not None:
                self._runner.run(self.__aexit__())
        finally:
            self._close_runner()

    def _close_runner(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    async def _start(self) -> _Running:
        """Connect to the server first: it is what most often is not there."""
        server = self._config.policy_server
        client = ChatClient(
            **self._server, timeout_s=server.request_timeout_s, attempts=server.request_attempts
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            config = with_limits_of(self._config, await client.describe())
            tools = await stack.enter_async_context(started_tools(self._without_own(config)))
            for name, tool in self._own_tools.items():
                stack.push_async_callback(tool.close)
                await tool.start()
                tools[name] = tool
            kernels = None
            if config.agent.mode == "agent":
                _require_main_thread()
                launcher = make_launcher(config.kernel, config.sandbox)
                kernels = KernelPool(launcher, idle=config.kernel.idle)
                stack.push_async_callback(kernels.close)
                await kernels.start()
            loop = AgentLoop(
                agent=config.agent,
                kernels=kernels,
                tools=tools,
                prompt=load_template(config.agent.system_prompt),
                cell_timeout_s=config.kernel.cell_timeout_s,
                output_bytes=config.kernel.output_bytes,
            )
            return _Running(client=client, loop=loop, config=config, stack=stack.pop_all())

    async def _once(self, task: Task, listener: EpisodeListener | None) -> Episode:
        async with self:
            return await self._episode(task, listener)

    async def _episode(self, task: Task, listener: EpisodeListener | None) -> Episode:
        running = self._running
        if running is None:
            raise RuntimeError("this agent was closed")
        conversation = ChatConversation(
            running.client,
            limit=running.config.model.max_context,
            temperature=running.config.agent.temperature,
            direct=running.config.agent.mode == "direct",
        )
        return await running.loop.run(task, conversation, listener)

    def _without_own(self, config: Config) -> Config:
        names = tuple(name for name in config.agent.tools if name not in self._own_tools)
        return with_options(config, tools=names)


def _require_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise EnvironmentFault(
            "the notebook's kernels must be started from the main thread, got thread "
            f"{threading.current_thread().name!r}: the system kills them when the thread that "
            "started them ends; run the agent in the main thread or in a process of its own"
        )


def _require_no_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an event loop runs in this thread already (as in Jupyter): use 'await "
        "agent.run_async(...)' and 'async with' here"
    )
