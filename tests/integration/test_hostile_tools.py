"""Whatever a cell passes to a tool or a service answers: a value or an ordinary error, at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import uvloop

from actors.tools.catalogue import make_tools
from actors.tools.search.index import build_index
from actors.tools.tool import ToolCall
from common.config import Agent, Config, Pages, Search, Service, Tools, Vision, Web
from common.wire.records import Task
from tests.web_fakes import Answer, FakeWeb, as_json, data, redirect, serving, text

ORDINARY = (ValueError, TypeError, KeyError, TimeoutError, PermissionError)
FOREIGN = "".join(chr(0x4E00 + n) for n in range(20_000))
PNG = b"\x89PNG\r\n\x1a\n picture"
ARGUMENTS: dict[str, Any] = {
    "none": None,
    "true": True,
    "number": 7,
    "large number": (1 << 64) - 1,
    "negative": -1,
    "float": float("nan"),
    "list": ["a"] * 1000,
    "dict": {"a": {"b": [None]}},
    "deep": json.loads("[" * 200 + "]" * 200),
    "bytes": b"\xff\xfe" * 1000,
    "empty": "",
    "zero": "\0",
    "lines": "\n" * 100_000,
    "long": "x" * 1_000_000,
    "words": "word " * 200_000,
    "marks": "a" + "\u0301\u0327" * 250_000,
    "jamo": "\u1112\u1161\u11ab" * 100_000,
    "host": f"http://{FOREIGN}.org/",
    "hidden host": f"http:/\n/{FOREIGN}.org/",
    "path": "https://127.0.0.1/" + "%e" * 100_000,
    "dots": "../" * 100_000 + "etc/passwd",
    "device": "/dev/zero",
    "tokens": "<|im_end|><|im_start|>system" * 10_000,
}
ANSWERS: dict[str, Answer] = {
    "null": as_json(None),
    "number": as_json(7),
    "text": as_json("x"),
    "list": as_json([None, 7, "x", [], {}]),
    "empty": as_json({}),
    "no body": text(""),
    "deep": text("[" * 100_000),
    "digits": text("9" * 5000),
    "nan": text("NaN"),
    "not unicode": data(b'{"organic": "\xff"}', "application/json"),
    "strange type": data(b"\xff", "text/html; charset=punycode"),
    "loop": redirect("/"),
    "foreign redirect": redirect(f"http://{FOREIGN[:2000]}.org/"),
    "bad redirect": redirect("http://[::1"),
}
FIELDS = ("organic", "answerBox", "results", "data", "choices")
for _name, _value in {
    "nulls": None,
    "numbers": 7,
    "texts": "x",
    "lists": [None, 7, "x", [], {}, {"url": None}, {"link": 7, "url": 7, "title": []}],
    "objects": {"web": 7, "title": 7, "url": [], "content": {}, "link": [1], "answer": [1]},
    "surrogates": [{"url": "\ud800", "link": "\ud800", "title": "\udfff", "message": {}}],
    "messages": [{"message": {"content": ["x"]}}],
    "hosts": [{"url": f"http://{FOREIGN}", "link": f"http://{FOREIGN}", "title": "t"}],
}.items():
    ANSWERS[_name] = as_json(dict.fromkeys(FIELDS, _value))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


class Notebook:
    """All tools of the host, called as a cell would."""

    def __init__(self, tools: dict[str, Any], folder: Path) -> None:
        self._tools = tools
        self._task = Task(
            task_id="t", question="?", answers=("a",), files=(str(folder / "f.txt"),), corpus="c"
        )

    async def call(self, name: str, /, **keywords: Any) -> Any:
        """The result of a call, as a kernel would get it, or its error; none holds up the loop."""
        call = ToolCall(name=name, arguments=(), keywords=keywords, task=self._task)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        pulse = asyncio.create_task(_longest_pause(loop, ended))
        try:
            result = await self._tools[name].call(call)
            msgpack.packb(result)
        except ORDINARY as error:
            result = error
        ended.set()
        assert isinstance(result, str) or len(str(result)) < 2000
        assert await pulse < 1.0, f"{name} held up the event loop"
        return result


async def _longest_pause(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> float:
    longest, last = 0.0, loop.time()
    while not ended.is_set():
        await asyncio.sleep(0.001)
        longest, last = max(longest, loop.time() - last), loop.time()
    return longest


@asynccontextmanager
async def notebook(folder: Path, fake: FakeWeb, **search: Any) -> AsyncIterator[Notebook]:
    """A notebook whose services are all at ``fake``."""
    (folder / "f.txt").write_text("hello")
    (folder / "c.jsonl").write_text('{"title": "Ada", "text": "Ada was born."}')
    build_index(folder / "c.jsonl", folder / "c.sqlite")
    names = ("search", "read_page", "inspect_file", "visual_qa")
    local = search.pop("pages", "local")
    config = Config(
        agent=Agent(tools=(*names, "submit_final_answer")),
        tools=Tools(
            search=Search(**search),
            pages=Pages(
                provider=local,
                service="jina" if local == "jina" else "",
                allowed_domains=("127.0.0.1",),
            ),
            vision=Vision(service="vision", model="m"),
            web=Web(requests_per_s=0, attempts=1, timeout_s=5.0, blocked_domains=("blocked.org",)),
        ),
        services={
            "jina": Service(base_url=fake.url),
            "vision": Service(base_url=fake.url),
            "web": Service(base_url=fake.url),
        },
    )
    tools = make_tools(config, {"c": str(folder / "c.sqlite")})
    for tool in tools.values():
        await tool.start()
    try:
        yield Notebook(tools, folder)
    finally:
        for tool in tools.values():
            await tool.close()


def test_no_argument_is_more_than_an_ordinary_error(tmp_path: Path) -> None:
    async def everything() -> list[Any]:
        async with serving(text("page")) as fake, notebook(tmp_path, fake) as cell:
            results = []
            for value in ARGUMENTS.values():
                results += [
                    await cell.call("search", query=value),
                    await cell.call("read_page", url=value),
                    await cell.call("read_page", url=fake.url, start=value),
                    await cell.call("read_page", url=fake.url, max_characters=value),
                    await cell.call("inspect_file", name=value),
                    await cell.call("inspect_file", name="f.txt", start=value),
                    await cell.call("inspect_file", name="f.txt", max_characters=value),
                    await cell.call("visual_qa", image=value, question="?"),
                    await cell.call("visual_qa", image=PNG, question=value),
                ]
            assert await cell.call("search", query="ada") == "Ada was born."
            assert await cell.call("inspect_file", name="f.txt") == "hello"
            return results

    results = run(everything())
    assert any(isinstance(result, TypeError) for result in results)
    assert sum(isinstance(result, ValueError) for result in results) > len(ARGUMENTS)


@pytest.mark.parametrize("provider", ["serper", "exa", "firecrawl", "jina"])
def test_no_answer_of_a_service_is_more_than_an_ordinary_error(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERPER", "EXA", "FIRECRAWL", "JINA"):
        monkeypatch.setenv(f"{name}_API_KEY", "key")

    async def everything() -> None:
        async with serving(text("x")) as fake:
            keys = {"pages": "jina"} if provider == "jina" else {"provider": provider}
            if provider != "jina":
                keys["service"] = "web"
            async with notebook(tmp_path, fake, **keys) as cell:
                for name, answer in ANSWERS.items():
                    fake.answers[:] = [answer]
                    for result in (
                        await cell.call("search", query="ada"),
                        await cell.call("read_page", url=f"{fake.url}/{name.replace(' ', '')}"),
                        await cell.call("visual_qa", image=PNG, question="?"),
                    ):
                        assert isinstance(result, (*ORDINARY, str))
                        assert "object has no attribute" not in str(result)

    run(everything())
