"""The notebook agent as a library: a model behind any OpenAI-compatible server, at work.

    from actors.agent.notebook_agent import NotebookAgent

    with NotebookAgent("qwen3-32b", base_url="http://HOST:8000/v1") as agent:
        episode = agent.run("How many primes are there below a million?")
        print(episode.answer)

The code that the model writes runs in a sandboxed kernel, as in training (docs/sandbox.md). The
kernels die with the thread that started them, so this works in the main thread only.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, Self

from actors.agent.events import Episode, EpisodeListener
from actors.agent.prompt import SHIPPED
from actors.agent.running import RunningAgent, ServerAddress, running_agent
from actors.agent.stand_alone import (
    GivenTool,
    make_task,
    sort_tools,
    stand_alone_config,
    with_corpus,
    with_options,
)
from actors.agent.stream import Event, stream_events
from common.config import Config
from common.wire.records import Task


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
        mode: Literal["agent", "direct"] | None = None,
        system_prompt: str | None = None,
        max_steps: int | None = None,
        max_action_tokens: int | None = None,
        temperature: float | None = None,
        config: Config | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            model: name of the model; empty takes the only one that the server has.
            base_url: address of the server, e.g. ``http://HOST:8000/v1``; empty takes
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
        self._address = ServerAddress(base_url=base_url, model=model, api_key=api_key)
        self._stack = AsyncExitStack()
        self._running: RunningAgent | None = None
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
            MachineError: this is not the main thread, or no sandbox can be started.
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
        """Work on ``task`` and yield what happens; the last event is ``EpisodeDone``.

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
                self._running = await self._stack.enter_async_context(
                    running_agent(self._config, self._address, self._own_tools)
                )
            self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything that was started, when nobody uses it any more."""
        async with self._gate:
            self._users -= 1
            if self._users == 0:
                self._running = None
                await self._stack.aclose()

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

    async def _once(self, task: Task, listener: EpisodeListener | None) -> Episode:
        async with self:
            return await self._episode(task, listener)

    async def _episode(self, task: Task, listener: EpisodeListener | None) -> Episode:
        if self._running is None:
            raise RuntimeError("this agent was closed")
        return await self._running.run(task, listener)


def _require_no_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an event loop runs in this thread already (as in Jupyter): use 'await "
        "agent.run_async(...)' and 'async with' here"
    )
