"""Connections to an index are each used by one search at a time, and none is ever lost."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.tools.catalogue import make_tools
from actors.tools.search.index import SearchIndex, build_index
from actors.tools.search.readers import IndexReaders
from actors.tools.tool import ToolCall
from common.config import Agent, Config, Search, Tools
from common.wire.records import Task

SLOW = " ".join(f"common{n}" for n in range(64))
"""A query that reads every page 64 times."""

_folder: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    lines = [json.dumps({"title": str(n), "text": f"page{n} {SLOW}"}) for n in range(1500)]
    (folder / "c.jsonl").write_text("\n".join(lines))
    build_index(folder / "c.jsonl", folder / "c.sqlite")
    _folder[:] = [folder / "c.sqlite"]
    return folder / "c.sqlite"


class WatchedIndex(SearchIndex):
    """A real index that notices when two threads use it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.alone = threading.Lock()
        self.was_shared = False

    def search(self, query: str, given_up: threading.Event | None = None) -> str:
        if not self.alone.acquire(blocking=False):
            self.was_shared = True
            raise AssertionError("two searches hold one connection")
        try:
            return super().search(query, given_up)
        finally:
            self.alone.release()


class Readers(RuleBasedStateMachine):
    """Searches begin, end and are given up in any order."""

    @initialize(count=st.integers(1, 3))
    def open(self, count: int) -> None:
        self.runner = asyncio.Runner()
        self.indexes = [WatchedIndex(_folder[0]) for _ in range(count)]
        self.readers = IndexReaders(self.indexes)
        self.searches: list[asyncio.Task[str]] = []

    def turn(self, delay_s: float = 0.0) -> None:
        self.runner.run(asyncio.sleep(delay_s))

    @rule(query=st.sampled_from([SLOW, "page7", "", "none\ud800"]))
    def begin(self, query: str) -> None:
        async def begun() -> asyncio.Task[str]:
            return asyncio.create_task(self.readers.search(query))

        self.searches.append(self.runner.run(begun()))

    @rule(pick=st.randoms(use_true_random=False), delay_s=st.sampled_from([0.0, 0.002]))
    def give_up(self, pick: Any, delay_s: float) -> None:
        self.turn(delay_s)
        if self.searches:
            pick.choice(self.searches).cancel()

    @rule()
    def finish(self) -> None:
        self.runner.run(asyncio.wait_for(self.settled(), 20))
        assert self.readers.free == len(self.indexes)

    async def settled(self) -> None:
        results = await asyncio.gather(*self.searches, return_exceptions=True)
        assert all(isinstance(result, str | asyncio.CancelledError) for result in results)
        self.searches.clear()
        while self.readers.free < len(self.indexes):
            await asyncio.sleep(0.001)

    @invariant()
    def none_is_shared_or_made(self) -> None:
        assert not any(index.was_shared for index in self.indexes)
        assert self.readers.free <= len(self.indexes)

    def teardown(self) -> None:
        async def close() -> None:
            for search in self.searches:
                search.cancel()
            async with asyncio.timeout(20):
                await self.readers.close()

        self.runner.run(close())
        self.runner.close()


TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def test_searches_that_time_out_leave_asyncio_s_threads_and_later_searches_alone(
    database: Path,
) -> None:
    async def others() -> str:
        config = Config(
            agent=Agent(tools=("search", "submit_final_answer")),
            tools=Tools(search=Search()),
        )
        tool = make_tools(config, {"train": str(database)})["search"]
        task = Task(task_id="t", question="?", answers=("a",), corpus="train")
        call = ToolCall(name="search", arguments=(SLOW,), keywords={}, task=task)
        await tool.start()
        try:
            given_up = [asyncio.wait_for(tool.call(call), 0.005) for _ in range(40)]
            outcomes = await asyncio.gather(*given_up, return_exceptions=True)
            assert all(isinstance(outcome, TimeoutError | str) for outcome in outcomes)
            assert any(isinstance(outcome, TimeoutError) for outcome in outcomes)
            names = [thread.name for thread in threading.enumerate()]
            assert not any(name.startswith("asyncio") for name in names)
            quick = ToolCall(name="search", arguments=("page7",), keywords={}, task=task)
            async with asyncio.timeout(2):
                return str(await tool.call(quick))
        finally:
            await tool.close()

    assert asyncio.run(others()).startswith("7\npage7")


def test_closing_stops_what_runs(database: Path) -> None:
    async def closed() -> list[Any]:
        readers = IndexReaders([SearchIndex(database)])
        running = asyncio.create_task(readers.search(SLOW))
        await asyncio.sleep(0)
        await readers.close()
        return await asyncio.gather(running, return_exceptions=True)

    (outcome,) = asyncio.run(closed())
    assert isinstance(outcome, ValueError)
