"""Tools that use the network, against servers on loopback that speak the services' APIs."""

import asyncio
import base64
import json
import logging
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from actors.tools.documents.reader import DocumentReader
from actors.tools.visual_qa import VisualQa
from actors.tools.web.client import WebClient
from actors.tools.web.read_page import JinaPages, LocalPages, ReadPage
from actors.tools.web.rules import PageRules
from actors.tools.web.search import WebSearch
from common.config import Pages, Search, Service, Vision, Web
from common.errors import ConfigError, MachineError
from tests.web_fakes import (
    FakeWeb,
    as_json,
    call,
    data,
    redirect,
    serving,
    started,
    text,
)

KEY = "sk-very-secret-0123456789"
WEB = Web(timeout_s=5.0, requests_per_s=0)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SERPER = {
    "searchParameters": {"q": "x", "type": "search"},
    "organic": [
        {"title": "Paris", "link": "https://a.org/paris", "snippet": "Capital.", "position": 1},
        {"title": "Lyon", "link": "https://b.org/lyon", "snippet": "Second city.", "position": 2},
        {"title": "Nice", "link": "https://c.org/nice", "position": 3},
    ],
}
ARTICLE = (
    "<html><head><title>Ada Lovelace</title></head><body><nav><a href='/'>Menu</a></nav><article>"
    "<h1>Ada Lovelace</h1>"
    + "".join(
        f"<p>Sentence number {n} tells what Ada did in the year {1800 + n}, in some detail.</p>"
        for n in range(40)
    )
    + "</article></body></html>"
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERPER", "EXA", "FIRECRAWL", "JINA", "VISION"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(20):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


def web_client(web_config: Web = WEB) -> WebClient:
    return WebClient(web_config, first_backoff_s=0.01)


def search_tool(
    fake: FakeWeb, provider: Any = "serper", web_config: Web = WEB, **keys: Any
) -> WebSearch:
    service = Service(base_url=fake.url, api_key_env=keys.pop("api_key_env", ""))
    search = Search(provider=provider, results=2, **keys)
    return WebSearch(search, service, web_config.blocked_domains, web_client(web_config))


def page_tool(web_config: Web = WEB, allowed: tuple[str, ...] = ("127.0.0.1",)) -> ReadPage:
    pages = Pages(allowed_domains=allowed, max_characters=1000)
    rules = PageRules(allowed=allowed, blocked=web_config.blocked_domains)
    return ReadPage(pages, LocalPages(rules, web_client(web_config), DocumentReader()))


async def searched(*answers: Any, web_config: Web = WEB, **keys: Any) -> tuple[Any, FakeWeb]:
    """What ``search`` gave or raised, and the server that it asked."""
    async with (
        serving(*answers) as fake,
        started(search_tool(fake, web_config=web_config, **keys)) as tool,
    ):
        try:
            return await call(tool, "capital of France"), fake
        except (ValueError, TimeoutError, PermissionError) as error:
            return error, fake


def test_serper_is_asked_as_its_reference_says_and_shown_as_text() -> None:
    result, fake = run(searched(as_json(SERPER)))

    asked = fake.asked[0]
    assert (asked.method, asked.path) == ("POST", "/search")
    assert asked.headers["X-API-KEY"] == KEY
    assert asked.json == {"q": "capital of France", "num": 10}
    assert result == (
        "Paris\nhttps://a.org/paris\nCapital.\n\nLyon\nhttps://b.org/lyon\nSecond city."
    )


def test_an_answer_box_of_serper_comes_first() -> None:
    box = {"title": "France", "link": "https://w.org/f", "answer": "Paris", "snippet": "..."}
    result, _ = run(searched(as_json({**SERPER, "answerBox": box})))
    assert result.startswith("France\nhttps://w.org/f\nParis\n\nParis\n")


def test_exa_is_asked_for_texts_and_shown_cut_to_length() -> None:
    found = {"results": [{"title": "Paris", "url": "https://a.org", "text": "x" * 900, "id": "1"}]}
    result, fake = run(searched(as_json(found), provider="exa", max_characters=100))

    assert fake.asked[0].headers["x-api-key"] == KEY
    assert fake.asked[0].json == {
        "query": "capital of France",
        "type": "auto",
        "numResults": 2,
        "contents": {"text": {"maxCharacters": 100}},
    }
    assert result.startswith("Paris\nhttps://a.org\nxxx")
    assert len(result) == 100


@pytest.mark.parametrize("is_list", [False, True], ids=["version 2", "version 1"])
def test_firecrawl_is_asked_with_a_bearer_key(is_list: bool) -> None:
    found = [{"url": "https://a.org", "title": "Paris", "description": "Capital.", "position": 1}]
    answer = {"success": True, "data": found if is_list else {"web": found}}
    result, fake = run(searched(as_json(answer), provider="firecrawl"))

    assert fake.asked[0].path == "/v2/search"
    assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert fake.asked[0].json == {"query": "capital of France", "limit": 2}
    assert result == "Paris\nhttps://a.org\nCapital."


def test_results_of_blocked_domains_are_left_out_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="actors.tools")
    blocked = replace(WEB, blocked_domains=("a.org",))
    result, _ = run(searched(as_json(SERPER), web_config=blocked))

    assert result == "Lyon\nhttps://b.org/lyon\nSecond city.\n\nNice\nhttps://c.org/nice"
    assert "https://a.org/paris" in caplog.text


def test_a_search_without_result_says_so() -> None:
    assert run(searched(as_json({"organic": []})))[0] == "No results."


@pytest.mark.parametrize(
    "failures",
    [
        [text("slow down", 429, Retry_After="0")],
        [text("", 500), text("", 503)],
        [lambda request: _dropped(request)],
    ],
    ids=["429", "500 and 503", "broken connection"],
)
def test_a_failure_that_may_pass_is_tried_again(failures: list[Any]) -> None:
    result, fake = run(searched(*failures, as_json(SERPER)))
    assert result.startswith("Paris")
    assert len(fake.asked) == len(failures) + 1


async def _dropped(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    async def timed() -> float:
        begin = asyncio.get_running_loop().time()
        await searched(text("", 429, Retry_After="1"), as_json(SERPER))
        return asyncio.get_running_loop().time() - begin

    assert run(timed()) >= 1.0


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (text("", 503), ValueError, r"127\.0\.0\.1 answered HTTP 503 \(3 tries\)"),
        (text("", 429, Retry_After="900"), ValueError, r"asks for a pause of 900 s \(1 try\)"),
        (
            text("<html>", 200),
            ValueError,
            "Serper answered with something that is not JSON: <html>",
        ),
        (text('{"organic": [', 200), ValueError, "not JSON"),
        (as_json([1]), ValueError, "Serper answered in an unknown shape"),
        (as_json({"organic": [{"title": "x"}]}), ValueError, "unknown shape: KeyError"),
        (text("bad query", 400), ValueError, "Serper answered HTTP 400 bad query"),
        (redirect("http://127.0.0.1/"), ValueError, "Serper answered HTTP 302"),
        (data(b"x" * (2 << 20), "text/plain"), ValueError, "larger than 1 MiB"),
    ],
    ids=["503", "long pause", "html", "cut", "list", "fields", "400", "302", "large"],
)
def test_a_failure_that_stays_is_an_error_that_says_what_came(
    answer: Any, kind: type[Exception], message: str
) -> None:
    result, _ = run(searched(answer, web_config=replace(WEB, max_response_mib=1)))
    assert isinstance(result, kind)
    with pytest.raises(kind, match=message):
        raise result


def test_a_server_that_does_not_answer_is_a_time_out_after_all_tries() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    result, fake = run(searched(silent, web_config=replace(WEB, timeout_s=0.1, attempts=2)))
    assert isinstance(result, TimeoutError)
    assert str(result) == "127.0.0.1 did not answer within 0.1 s (2 tries)"
    assert len(fake.asked) == 2


def test_a_server_that_is_not_there_is_named() -> None:
    async def nowhere() -> None:
        async with serving(text("")) as gone:
            pass
        async with started(search_tool(gone)) as tool:
            await call(tool, "x")

    with pytest.raises(ValueError, match=r"127\.0\.0\.1 could not be reached"):
        run(nowhere())


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_never_shown(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    result, fake = run(searched(text(f"Invalid API key {KEY}!", status)))

    assert isinstance(result, PermissionError)
    assert str(result) == (
        f"Serper refused the key (SERPER_API_KEY): HTTP {status} Invalid API key ***!"
    )
    assert len(fake.asked) == 1
    assert KEY not in caplog.text


@pytest.mark.parametrize("provider", ["serper", "exa", "firecrawl"])
def test_a_missing_key_stops_the_start_and_names_the_variable(
    provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    usual = WebSearch(Search(provider=provider), Service(), (), web_client())
    named = Service(api_key_env="MY_KEY")
    own = WebSearch(Search(provider=provider), named, (), web_client())
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", " ")

    with pytest.raises(MachineError, match=f"{provider.upper()}_API_KEY"):
        run(usual.start())
    with pytest.raises(MachineError, match="MY_KEY"):
        run(own.start())


def test_what_was_recorded_is_replayed_without_network_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(WEB, cache=str(tmp_path), cache_mode="record")
    replay = replace(record, cache_mode="replay")

    async def replayed(fake: FakeWeb) -> Any:
        async with started(search_tool(fake, web_config=replay)) as tool:
            return await call(tool, "capital of France")

    async def unknown(fake: FakeWeb) -> Any:
        async with started(search_tool(fake, web_config=replay)) as tool:
            return await call(tool, "another query")

    first, fake = run(searched(as_json(SERPER), web_config=record))
    monkeypatch.delenv("SERPER_API_KEY")
    assert run(replayed(fake)) == first
    assert len(fake.asked) == 1
    with pytest.raises(ValueError, match=r"is not in the cache.*'replay'; record it first"):
        run(unknown(fake))


def test_a_cache_entry_can_be_read_by_people_and_holds_no_key(tmp_path: Path) -> None:
    echo = {**SERPER, "echo": KEY}
    run(searched(as_json(echo), web_config=replace(WEB, cache=str(tmp_path))))

    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    entry = json.loads(path.read_text())
    assert path.parent.name == "127.0.0.1"
    assert entry["request"]["method"] == "POST"
    assert json.loads(entry["request"]["body"])["q"] == "capital of France"
    assert json.loads(entry["response"]["body"])["echo"] == "***"
    assert KEY not in path.read_text()


def test_recording_always_fetches_and_filling_only_once(tmp_path: Path) -> None:
    async def asked(mode: Any, folder: Path) -> int:
        web_config = replace(WEB, cache=str(folder), cache_mode=mode)
        async with serving(as_json(SERPER)) as fake:
            async with started(search_tool(fake, web_config=web_config)) as tool:
                await asyncio.gather(*(call(tool, "q") for _ in range(8)))
            return len(fake.asked)

    assert run(asked("fill", tmp_path / "fill")) == 1
    assert run(asked("record", tmp_path / "record")) == 8
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_failures_of_a_service_are_not_kept(tmp_path: Path) -> None:
    for answer in (text("<html>"), text("", 400), text("", 401)):
        run(searched(answer, web_config=replace(WEB, cache=str(tmp_path))))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_entry_is_fetched_again_but_stops_a_replay(tmp_path: Path) -> None:
    fill = replace(WEB, cache=str(tmp_path))

    async def twice(second: Web) -> tuple[Any, int]:
        async with serving(as_json(SERPER)) as fake:
            async with started(search_tool(fake, web_config=fill)) as tool:
                await call(tool, "q")
            for path in tmp_path.rglob("*.json"):
                path.write_text("{")
            async with started(search_tool(fake, web_config=second)) as tool:
                return await call(tool, "q"), len(fake.asked)

    result, requests = run(twice(fill))
    assert result.startswith("Paris")
    assert requests == 2
    with pytest.raises(ValueError, match=r"cache entry '.*\.json' is damaged"):
        run(twice(replace(fill, cache_mode="replay")))


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_record_and_replay_need_a_folder(mode: Any) -> None:
    with pytest.raises(ConfigError, match=rf"web\.cache_mode = '{mode}' needs a folder"):
        WebClient(Web(cache_mode=mode))


async def read(tool: ReadPage, *arguments: Any, **keywords: Any) -> Any:
    async with started(tool):
        return await call(tool, *arguments, **keywords)


def test_a_page_is_read_as_text_in_parts_and_fetched_once() -> None:
    async def whole() -> tuple[str, FakeWeb]:
        async with (
            serving(data(ARTICLE.encode(), "text/html")) as fake,
            started(page_tool()) as tool,
        ):
            part, shown = await call(tool, f"{fake.url}/ada#top"), ""
            while "; go on at start=" in part:
                part, note = part.rsplit("\n[characters ", 1)
                shown += part
                start = int(note.rpartition("=")[2].rstrip("]"))
                part = await call(tool, f"{fake.url}/ada", start=start)
            return shown + part, fake

    page, fake = run(whole())
    assert page.startswith(f"{fake.url}/ada\n\n# Ada Lovelace\n")
    assert "Sentence number 0 tells" in page
    assert "Sentence number 39 tells" in page
    assert "Menu" not in page
    assert [asked.path for asked in fake.asked] == ["/ada"]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"plain words\nhere", "text/plain", "{url}/x\n\nplain words\nhere"),
        ("größe".encode("latin-1"), "text/plain; charset=latin-1", "{url}/x\n\ngröße"),
        (b'{"b": 1}', "application/json", '"b": 1'),
        (b"a,b\n1,2\n", "text/csv", "{url}/x\n\na\tb\n1\t2"),
    ],
    ids=["plain", "latin-1", "json", "csv"],
)
def test_pages_that_are_no_html_are_read_by_their_kind(
    body: bytes, content_type: str, expected: str
) -> None:
    async def one() -> tuple[str, str]:
        def answer(request: web.Request) -> web.Response:
            return web.Response(body=body, headers={"Content-Type": content_type})

        async with serving(answer) as fake:
            return await read(page_tool(), f"{fake.url}/x"), fake.url

    shown, url = run(one())
    assert expected.format(url=url) in shown


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (text("gone", 404), r"/x answered HTTP 404"),
        (data(b"\x00\x01\x02", "application/octet-stream"), "holds no text"),
        (data(b"%PDF-1.4 nonsense", "application/pdf"), "cannot be read: damaged pdf"),
        (data(b"", "text/html"), "holds no text"),
        (redirect("/x"), "redirects more than 5 times"),
        (redirect("file:///etc/passwd"), "expected an address"),
    ],
    ids=["404", "binary", "damaged pdf", "empty", "loop", "file"],
)
def test_a_page_that_cannot_be_read_says_why(answer: Any, message: str) -> None:
    async def one() -> None:
        async with serving(answer) as fake:
            await read(page_tool(), f"{fake.url}/x")

    with pytest.raises(ValueError, match=message):
        run(one())


def test_redirects_are_followed_where_the_rules_allow_the_new_address() -> None:
    async def one() -> str:
        async with serving(redirect("/second"), text("arrived")) as fake:
            return str(await read(page_tool(), f"{fake.url}/first"))

    assert "/second" in run(one())


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://0x7f000001:{port}/",
        "http://2130706433:{port}/",
    ],
)
def test_a_redirect_to_this_machine_is_refused_however_it_is_written(target: str) -> None:
    async def one() -> int:
        async with serving(text("secret")) as inside:
            location = target.format(port=inside.url.rpartition(":")[2])
            async with serving(redirect(location)) as fake:
                with pytest.raises(
                    (PermissionError, ValueError), match=r"private, loopback|not an address"
                ):
                    await read(page_tool(allowed=("127.0.0.1", "*")), fake.url)
            return len(inside.asked)

    assert run(one()) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "0"])
def test_an_agent_cannot_read_this_machine_when_every_public_address_is_allowed(host: str) -> None:
    async def one() -> int:
        async with serving(text("secret")) as inside:
            port = inside.url.rpartition(":")[2]
            with pytest.raises(
                (PermissionError, ValueError), match=r"private, loopback|not an address"
            ):
                await read(page_tool(allowed=("*",)), f"http://{host}:{port}/")
            return len(inside.asked)

    assert run(one()) == 0


def test_a_redirect_to_a_blocked_or_unlisted_domain_is_refused() -> None:
    async def one(location: str) -> None:
        async with serving(redirect(location)) as fake:
            blocked = replace(WEB, blocked_domains=("mirror.org",))
            await read(page_tool(blocked), fake.url)

    with pytest.raises(PermissionError, match=r"mirror\.org is blocked"):
        run(one("https://www.mirror.org/answers"))
    with pytest.raises(PermissionError, match=r"example\.org may not be read; allowed"):
        run(one("https://example.org/"))


def test_a_recorded_page_is_replayed_but_not_when_its_domain_is_blocked_since(
    tmp_path: Path,
) -> None:
    record = replace(WEB, cache=str(tmp_path), cache_mode="record")
    replay = replace(record, cache_mode="replay")

    async def both() -> tuple[str, str, str]:
        async with serving(redirect("/end"), data(ARTICLE.encode(), "text/html")) as fake:
            first = await read(page_tool(record), f"{fake.url}/start")
        return first, await read(page_tool(replay), f"{fake.url}/start"), fake.url

    first, second, url = run(both())
    assert first == second
    with pytest.raises(PermissionError, match="is blocked"):
        run(read(page_tool(replace(replay, blocked_domains=("127.0.0.1",))), f"{url}/start"))


def test_the_event_loop_goes_on_while_a_large_page_is_read() -> None:
    sentences = "".join(f"<p>Sentence {n} tells what Ada did.</p>" for n in range(15_000))
    page = ARTICLE.replace("</article>", f"{sentences}</article>")

    async def longest_pause() -> float:
        loop = asyncio.get_running_loop()
        async with serving(data(page.encode(), "text/html")) as fake, started(page_tool()) as tool:
            await call(tool, fake.url)
            reading = asyncio.ensure_future(call(tool, f"{fake.url}/?again"))
            pauses = []
            while not reading.done():
                begin = loop.time()
                await asyncio.sleep(0)
                pauses.append(loop.time() - begin)
            await reading
        return sorted(pauses)[-3]

    assert run(longest_pause()) < 0.1


def jina_tool(fake: FakeWeb, blocked: tuple[str, ...] = ()) -> ReadPage:
    pages = Pages(provider="jina", max_characters=60)
    return ReadPage(pages, JinaPages(Service(base_url=fake.url), blocked, web_client()))


def jina_answer(url: str) -> dict[str, Any]:
    page = {"title": "Ada", "url": url, "content": "Ada wrote notes. " * 10, "usage": {"tokens": 9}}
    return {"code": 200, "status": 20000, "data": page}


def test_jina_reads_a_page_with_its_key() -> None:
    async def one() -> tuple[str, FakeWeb]:
        async with serving(as_json(jina_answer("https://example.org/ada"))) as fake:
            return await read(jina_tool(fake), "https://example.org/ada"), fake

    shown, fake = run(one())
    assert fake.asked[0].method == "POST"
    assert fake.asked[0].json == {"url": "https://example.org/ada"}
    assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert fake.asked[0].headers["Accept"] == "application/json"
    assert shown.startswith("https://example.org/ada\n\nAda\n\nAda wrote")
    assert "go on at start=60" in shown


def test_jina_is_never_asked_for_a_blocked_page_and_its_answer_is_checked() -> None:
    async def one(address: str, answer: Any) -> int:
        async with serving(as_json(answer)) as fake:
            with pytest.raises((PermissionError, ValueError), match=r"is blocked|unknown shape"):
                await read(jina_tool(fake, ("mirror.org",)), address)
            return len(fake.asked)

    assert run(one("https://mirror.org/x", {})) == 0
    assert run(one("https://short.link/x", jina_answer("https://mirror.org/x"))) == 1
    assert run(one("https://short.link/x", {"data": None})) == 1


def visual_tool(fake: FakeWeb, **keys: Any) -> VisualQa:
    service = Service(
        base_url=f"{fake.url}/v1/", api_key_env=keys.pop("api_key_env", "VISION_API_KEY")
    )
    vision = Vision(model="eyes", **keys)
    return VisualQa(vision, service, PageRules(allowed=("127.0.0.1",)), web_client())


def completion(content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


@pytest.mark.parametrize("source", ["bytes", "file", "address"])
def test_a_question_about_an_image_reaches_the_vision_model(source: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)

    async def one() -> tuple[str, FakeWeb]:
        async with (
            serving(data(PNG, "image/png")) as pages,
            serving(as_json(completion(" A red dot. "))) as fake,
            started(visual_tool(fake)) as tool,
        ):
            image = {"bytes": PNG, "file": "cat.png", "address": f"{pages.url}/cat.png"}[source]
            files = (str(tmp_path / "cat.png"),)
            return await call(tool, image, "What is it?", files=files), fake

    answer, fake = run(one())
    body = fake.asked[0].json
    question, picture = body["messages"][0]["content"]
    assert answer == "A red dot."
    assert fake.asked[0].path == "/v1/chat/completions"
    assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["max_tokens"]) == ("eyes", 512)
    assert question == {"type": "text", "text": "What is it?"}
    assert (
        base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,")) == PNG
    )


def test_a_vision_model_without_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISION_API_KEY")

    async def one() -> FakeWeb:
        async with (
            serving(as_json(completion("yes"))) as fake,
            started(visual_tool(fake, api_key_env="")) as tool,
        ):
            await call(tool, PNG, "?")
            return fake

    assert "Authorization" not in run(one()).asked[0].headers


@pytest.mark.parametrize(
    ("image", "answer", "message"),
    [
        (b"text", completion("x"), "this is no image"),
        ("dog.png", completion("x"), r"'dog\.png'; attached files: none"),
        ("../../etc/passwd", completion("x"), "no attached file"),
        ("http://10.0.0.1/cat.png", completion("x"), "may not be read"),
        (PNG, completion(None), "empty answer"),
        (PNG, {"choices": []}, "unknown shape"),
        (PNG + b"\0" * (20 << 20), completion("x"), "make it smaller"),
    ],
    ids=["no image", "no file", "traversal", "private", "empty", "shape", "large"],
)
def test_a_question_that_cannot_be_asked_says_why(image: Any, answer: Any, message: str) -> None:
    async def one() -> None:
        async with serving(as_json(answer)) as fake, started(visual_tool(fake)) as tool:
            await call(tool, image, "?")

    with pytest.raises((ValueError, PermissionError), match=message):
        run(one())


def test_a_vision_tool_without_model_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"vision\.model must be set"):
        VisualQa(Vision(), Service(base_url="http://x"), PageRules(), web_client())
