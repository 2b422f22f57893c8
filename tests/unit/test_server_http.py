"""HTTP to a policy server is the same over a Unix socket and over TCP, blocking and not."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from actors.policy import PolicyClient
from common.places import Address
from common.wire.server_http import UNIX_HOST, open_connection, server_url
from launch.starters.specs import answers
from learner.weights.parity import sample_answers

TOKEN = {
    "token_ids": [5],
    "logprobs": {"content": [{"token_id": 5, "logprob": -0.5}]},
    "weight_versions": [{"version": "0", "start": 0, "end": 1}],
    "finish_reason": "stop",
}


class UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


class Echo(BaseHTTPRequestHandler):
    """Answers every path but ``/health`` with what came, and a generation for who asks for one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/health" else 404, {"host": self.headers["Host"]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"got": body.decode(), "choices": [TOKEN]})

    def answer(self, status: int, content: object) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: UnixServer | ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["unix", "tcp"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "unix":
        address = Address(bind=str(tmp_path / "s0.http"))
        with serving(UnixServer(address.bind, Echo)):
            yield server_url(address)
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    port = server.server_address[1]
    with serving(server):
        yield server_url(Address(bind="127.0.0.1", host="127.0.0.1", port=port))


def test_a_connection_sends_and_receives(url: str) -> None:
    connection = open_connection(url, timeout_s=5)
    try:
        for text in ("one", "two"):
            connection.request("POST", "/echo", body=text)
            assert json.loads(connection.getresponse().read())["got"] == text
    finally:
        connection.close()


def test_the_host_of_a_request_is_the_servers_name_and_no_path(url: str) -> None:
    connection = open_connection(url, timeout_s=5)
    try:
        connection.request("GET", "/health")
        host = json.loads(connection.getresponse().read())["host"]
    finally:
        connection.close()

    assert host == (UNIX_HOST if url.startswith("unix:") else url.removeprefix("http://"))


def test_the_prompts_of_a_check_are_all_asked_before_one_is_answered(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    class Waits(Echo):
        def do_POST(self) -> None:
            together.wait(timeout=10)
            super().do_POST()

    address = Address(bind=str(tmp_path / "s0.http"))
    with serving(UnixServer(address.bind, Waits)):
        sampled = sample_answers(server_url(address), [[1], [2], [3], [4]], version=0)

    assert sampled.prompts == ((1,), (2,), (3,), (4,))
    assert len(sampled.generations) == 4


def test_the_client_of_the_actors_gets_generations(url: str) -> None:
    async def ask() -> list[int]:
        async with PolicyClient([url], timeout_s=5, attempts=1) as client:
            generation = await client.generate([1, 2], max_tokens=4, temperature=1.0)
            return generation.token_ids.tolist()

    assert asyncio.run(ask()) == [5]


def test_a_server_answers_only_with_success(url: str) -> None:
    assert answers(url, "/health")
    assert not answers(url, "/other")


def test_a_server_that_is_gone_does_not_answer(tmp_path: Path) -> None:
    gone, left = tmp_path / "gone", tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(left))

    for path in (gone, left):
        assert not answers(server_url(Address(bind=str(path))), "/health")


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_was_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        connection = open_connection(server_url(Address(bind=str(path))), timeout_s=0.05)
        try:
            connection.request("GET", "/health")
            with pytest.raises((TimeoutError, http.client.HTTPException)):
                connection.getresponse()
        finally:
            connection.close()
