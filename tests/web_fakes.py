"""A web server on loopback that plays prepared answers and remembers what it was asked."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from actors.tools.tool import Tool, ToolCall
from common.wire.records import Task

Answer = Callable[[web.Request], Any]


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeWeb:
    """Answers in order; the last one is repeated. An answer makes a response of a request."""

    answers: list[Answer]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(request.method, request.path_qs, dict(request.headers), await request.read())
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        made = answer(request)
        return await made if hasattr(made, "__await__") else made


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[FakeWeb]:
    fake = FakeWeb(list(answers))
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def started(tool: Tool) -> AsyncIterator[Tool]:
    await tool.start()
    try:
        yield tool
    finally:
        await tool.close()


async def call(tool: Tool, *arguments: Any, files: tuple[str, ...] = (), **keywords: Any) -> Any:
    task = Task(task_id="t", question="?", answers=("a",), files=files)
    name = tool.specs[0].name
    return await tool.call(ToolCall(name=name, arguments=arguments, keywords=keywords, task=task))


def text(body: str, status: int = 200, **headers: str) -> Answer:
    return lambda request: web.Response(
        text=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def data(body: bytes, content_type: str) -> Answer:
    return lambda request: web.Response(body=body, content_type=content_type)


def as_json(body: Any, status: int = 200) -> Answer:
    return lambda request: web.json_response(body, status=status)


def redirect(location: str) -> Answer:
    return lambda request: web.Response(status=302, headers={"Location": location})
