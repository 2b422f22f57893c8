"""``search`` over a retrieval server that speaks the protocol of Search-R1's."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors.tools.catalogue import make_tools
from common.config import Config, Search, Service, Tools, Web
from common.config_file import config_from_tables
from common.errors import ConfigError, MachineError
from common.tasks import write_tasks
from common.wire.records import Task
from launch.cli import main
from launch.run.preflight import check_task_files
from tests.chat_server import ChatServer, Messages
from tests.integration.test_web_tools import run
from tests.web_fakes import FakeWeb, as_json, call, serving, started, text

BORN = {"Anna Keller": "Port Alden", "Ida Brandt": "Leeds", "Tom Ekman": "Visby"}
KELLER = {"id": "7", "contents": '"Anna Keller"\nAnna Keller, born in Port Alden.'}
TOWN = {"id": "9", "contents": '"Port Alden"\nA town by the sea.'}
SHOWN = "Anna Keller, born in Port Alden.\n\nPort Alden\nA town by the sea."


def config_of(url: str, *, service: str = "", key: str = "", **search: Any) -> Config:
    return Config(
        tools=Tools(
            search=Search(provider="retriever", service=service, **search),
            web=Web(timeout_s=5.0, attempts=1, requests_per_s=1e-3, max_response_mib=1),
        ),
        services={service or "retriever": Service(base_url=url, api_key_env=key)},
    )


def tool_of(config: Config) -> Any:
    return make_tools(config, {"train": ""})["search"]


async def searched(answer: Any, *queries: str, path: str = "", **keys: Any) -> tuple[Any, FakeWeb]:
    """What the last query gave or raised, and the server that was asked."""
    made = as_json(answer) if isinstance(answer, dict | list) else answer
    async with (
        serving(made) as fake,
        started(tool_of(config_of(fake.url + path, **keys))) as tool,
    ):
        try:
            for query in queries or ("Where was Anna Keller born?",):
                found = await call(tool, query)
            return found, fake
        except (ValueError, TimeoutError, PermissionError) as error:
            return error, fake


def test_the_server_is_asked_as_search_r1_asks_and_pages_are_shown_as_text() -> None:
    scored = [{"document": KELLER, "score": 0.9}, {"document": TOWN, "score": 0.5}]
    found, fake = run(searched({"result": [scored]}, results=2))

    assert (fake.asked[0].method, fake.asked[0].path) == ("POST", "/retrieve")
    assert fake.asked[0].json == {
        "queries": ["Where was Anna Keller born?"],
        "topk": 2,
        "return_scores": True,
    }
    assert "Authorization" not in fake.asked[0].headers
    assert found == SHOWN


@pytest.mark.parametrize(
    "documents",
    [
        [KELLER, TOWN],
        [
            {"title": '"Anna Keller"', "text": "Anna Keller, born in Port Alden."},
            {"title": "Port Alden", "text": "A town by the sea."},
        ],
        [{"document": KELLER["contents"]}, TOWN["contents"]],
        [KELLER, TOWN, {"contents": "more than was asked for"}],
    ],
    ids=["bare", "title and text", "texts", "too many"],
)
def test_documents_are_read_without_scores_and_in_other_forms(documents: list[Any]) -> None:
    assert run(searched({"result": [documents]}, results=2))[0] == SHOWN


@pytest.mark.parametrize(
    ("contents", "shown"),
    [
        ('""Heroes" (song)"\nA song.', '"Heroes" (song)\nA song.'),
        ("No quotes\nA page.", "No quotes\nA page."),
        ('"Alone"', "Alone"),
        ('"Cut"\n' + "x" * 100, "Cut\n" + "x" * 36),
        ('"Half \ud83d"\nA page.', "Half ?\nA page."),
    ],
)
def test_a_title_loses_its_quotes_and_a_page_what_is_too_long(contents: str, shown: str) -> None:
    answer = {"result": [[{"contents": contents}]]}
    assert run(searched(answer, max_characters=40))[0] == shown


def test_an_address_with_a_path_is_asked_as_it_is_under_any_name_and_with_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    keys = {"service": "wiki", "key": "MY_KEY", "path": "/v1/find/"}
    found, fake = run(searched({"result": [[KELLER]]}, **keys))

    assert found == "Anna Keller, born in Port Alden."
    assert fake.asked[0].path == "/v1/find"
    assert fake.asked[0].headers["Authorization"] == "Bearer secret"


def test_a_missing_key_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(MachineError, match="MY_KEY"):
        run(tool_of(config_of("http://127.0.0.1:9", key="MY_KEY")).start())


def test_a_server_of_ones_own_has_no_rate_limit_and_nothing_is_asked_for_nothing() -> None:
    found, fake = run(searched({"result": [[]]}, "a", "b", "x" * 5000, " "))

    assert found == "No results."
    assert [len(asked.json["queries"][0]) for asked in fake.asked] == [1, 1, 1000]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"results": []}, r"expected {'result': \[\[...\]\]} with one list"),
        ({"result": []}, "with one list for one query"),
        ({"result": [[KELLER], [KELLER]]}, "with one list for one query"),
        ({"result": [[{"id": 3}]]}, "expected a document with 'contents', or with 'title' and"),
        ({"result": [[{"document": 3, "score": 1}]]}, "expected a document"),
        ({"result": [[None]]}, "expected a document"),
        ([1], "in an unknown shape"),
        (text("<html>"), "not JSON: <html>"),
        (text("no such path", 404), "the retrieval server answered HTTP 404 no such path"),
        (text("", 500), r"answered HTTP 500 \(1 try\)"),
        (text("x" * (2 << 20)), "larger than 1 MiB"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_what_came(answer: Any, message: str) -> None:
    found, _ = run(searched(answer))

    assert isinstance(found, ValueError)
    assert len(str(found)) < 500
    with pytest.raises(ValueError, match=message):
        raise found


@pytest.mark.parametrize(
    ("services", "service", "message"),
    [
        ({}, "", r"needs services\.retriever\.base_url"),
        ({"retriever": {}}, "", r"needs services\.retriever\.base_url"),
        ({"wiki": {"api_key_env": "X"}}, "wiki", r"needs services\.wiki\.base_url"),
        ({"retriever": {"base_url": "127.0.0.1:8000"}}, "", r"base_url must be an address like"),
    ],
)
def test_a_missing_address_names_its_key(services: Any, service: str, message: str) -> None:
    search = {"provider": "retriever", "service": service}
    config = config_from_tables({"tools": {"search": search}, "services": services}, where="test")
    with pytest.raises(ConfigError, match=message):
        make_tools(config, {})


def test_a_run_with_a_retriever_needs_no_corpus(tmp_path: Path) -> None:
    write_tasks([Task(task_id="t", question="?", answers=("a",))], tmp_path / "t.jsonl")
    tables = {
        "tasks": {"train": str(tmp_path / "t.jsonl")},
        "tools": {"search": {"provider": "retriever"}},
        "services": {"retriever": {"base_url": "http://127.0.0.1:9"}},
    }

    check_task_files(config_from_tables(tables, where="test"))


class Retriever(BaseHTTPRequestHandler):
    """Finds the page of the person whom a query names."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        named = [[name for name in BORN if name in query] for query in body["queries"]]
        result = [
            [
                {"document": {"contents": f'"{n}"\n{n}, born in {BORN[n]}.'}, "score": 1.0}
                for n in ns
            ]
            for ns in named
        ]
        answer = json.dumps({"result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def retriever() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Retriever) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def as_agent(messages: Messages) -> str:
    if messages[-1]["content"].startswith("<output>"):
        found = messages[-1]["content"].split("born in ")[1].split(".")[0]
        return f"<think>there</think><code>submit_final_answer({found!r})</code>"
    return f"<think>look</think><code>print(search({messages[-1]['content']!r}))</code>"


def with_pages(messages: Messages) -> str:
    pages, _, _ = messages[-1]["content"].partition("Question: ")
    return "Answer: " + pages.split("born in ")[1].split(".")[0]


@pytest.mark.sandbox
@pytest.mark.parametrize(("mode", "script"), [("agent", as_agent), ("rag", with_pages)])
def test_an_evaluation_searches_by_the_server(
    mode: str, script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    born = [
        Task(task_id=name, question=f"Where was {name} born?", answers=(town,))
        for name, town in BORN.items()
    ]
    write_tasks(born, tmp_path / "towns.jsonl")
    with retriever() as url, ChatServer(script) as server:
        (tmp_path / "run.toml").write_text(
            f'[services.retriever]\nbase_url = "{url}"\n[tools.search]\nprovider = "retriever"\n'
            '[agent]\ntools = ["search", "submit_final_answer"]\n'
        )
        options = ("--mode", mode, "--config", tmp_path / "run.toml", "--out", tmp_path / "out")
        tasks = ("--tasks", tmp_path / "towns.jsonl")
        status = main(["eval", "--url", server.url, "--json", *map(str, (*tasks, *options))])

    printed = capsys.readouterr()
    assert status == 0, printed.err
    scores = json.loads(printed.out)["sets"]["towns"]["scores"]
    assert scores["exact_match"]["mean"] == 1.0
    assert "search will find nothing" not in printed.err
