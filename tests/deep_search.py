"""Records the web of the deep-search example: ``python -m tests.deep_search`` from the repository.

The agent works against local servers that speak the protocols of Serper and Jina Reader about a
made-up web; what its cache then holds is put under the addresses of the services themselves.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from actors.agent.events import Episode
from actors.agent.notebook_agent import NotebookAgent
from actors.agent.stand_alone import stand_alone_config
from actors.tools.web.cache import ResponseCache
from actors.tools.web.messages import WebRequest
from common.config import Config, Service
from common.config_file import load_config
from tests.chat_server import ChatServer, replies
from tests.web_fakes import serving

EXAMPLE = Path("docs/examples/deep_search")
SERVICES = {"serper": "https://google.serper.dev", "jina": "https://r.jina.ai"}
KEY = "key-0123456789"

LIGHT = "https://lights.example.org/grey-skerry"
LIST = "https://lights.example.org/list"
LIFE = "https://lives.example.org/ingrid-dahlmann"

PAGES = {
    LIGHT: (
        "Grey Skerry lighthouse",
        "Grey Skerry lighthouse stands on a bare rock west of the harbour. Ingrid Dahlmann "
        "designed it. Work began in the spring of 1894; four years later the lamp was first lit.",
    ),
    LIST: (
        "Lights of the west coast",
        "Grey Skerry, white, every ten seconds. Long Ness, red, every five seconds.",
    ),
    LIFE: (
        "Ingrid Dahlmann",
        "Ingrid Dahlmann, born Voss, lighthouse engineer. She married Erik Dahlmann in 1889 but "
        "went on to sign everything that she wrote with the name she was born with, Ingrid Voss.",
    ),
}
"""Title and text of each page of the made-up web, by its address."""

FOUND = {
    "Grey Skerry lighthouse designer first lit": (LIGHT, LIST),
    "Ingrid Dahlmann lighthouse engineer life": (LIFE, LIGHT),
}
"""Addresses that each query finds, best first."""


async def answer(request: web.Request) -> web.Response:
    """What Serper or Jina Reader would answer; 401 without the key, as they do."""
    asked = await request.json()
    sent = request.headers.get("X-API-KEY"), request.headers.get("Authorization")
    if sent not in ((KEY, None), (None, f"Bearer {KEY}")):
        return web.json_response({"message": "Unauthorized."}, status=401)
    if request.path == "/serper/search":
        return web.json_response(_found(asked["q"]))
    title, text = PAGES[asked["url"]]
    page = {"title": title, "url": asked["url"], "content": text}
    return web.json_response({"code": 200, "status": 20000, "data": page})


def _found(query: str) -> dict[str, object]:
    results = [
        {"title": PAGES[url][0], "link": url, "snippet": PAGES[url][1][:60], "position": place}
        for place, url in enumerate(FOUND[query], start=1)
    ]
    return {"searchParameters": {"q": query, "type": "search"}, "organic": results}


def record(question: str, folder: Path) -> Episode:
    """Let the agent answer ``question`` with the written actions; the web goes into ``folder``.

    The environment must hold ``KEY`` as SERPER_API_KEY and JINA_API_KEY.
    """
    actions = json.loads((EXAMPLE / "actions.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as cache, ChatServer(replies(*actions)) as model:
        episode = asyncio.run(_work(question, model.url, Path(cache)))
        for file in Path(cache).rglob("*.json"):
            _readdress(file, folder)
    return episode


async def _work(question: str, model: str, cache: Path) -> Episode:
    async with serving(answer) as local:
        config = _local(local.url, cache)
        async with NotebookAgent(base_url=model, config=config) as agent:
            return await agent.run_async(question)


def _local(url: str, cache: Path) -> Config:
    """The example's own configuration, with the services at ``url`` instead of their own."""
    config = load_config(EXAMPLE / "live.toml", defaults=stand_alone_config())
    tools = replace(
        config.tools,
        search=replace(config.tools.search, service="serper"),
        pages=replace(config.tools.pages, service="jina"),
        web=replace(config.tools.web, cache=str(cache), cache_mode="record"),
    )
    services = {name: Service(base_url=f"{url}/{name}") for name in SERVICES}
    return replace(config, tools=tools, services=services)


def _readdress(file: Path, folder: Path) -> None:
    """Keep an entry of a local server as one of the service that it stood for."""
    told = json.loads(file.read_text(encoding="utf-8"))["request"]
    request = WebRequest(
        method=told["method"], url=told["url"], body=told["body"].encode(), headers=told["headers"]
    )
    response = ResponseCache(file.parents[1]).load(request)
    assert response is not None
    public = _public(told["url"])
    ResponseCache(folder).store(replace(request, url=public), replace(response, url=public))


def _public(url: str) -> str:
    name, _, path = url.split("/", 3)[3].partition("/")
    return f"{SERVICES[name]}/{path}"


def question_of_the_example() -> str:
    """As ``replay.py`` asks it."""
    page = (EXAMPLE.parents[1] / "deep_search.md").read_text(encoding="utf-8")
    return page.split("\n> ", 1)[1].split("\n\n", 1)[0].replace("\n> ", " ")


if __name__ == "__main__":
    os.environ.update(SERPER_API_KEY=KEY, JINA_API_KEY=KEY)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(EXAMPLE / "web", ignore_errors=True)
    print(record(question_of_the_example(), EXAMPLE / "web").answer)
