"""The weight routes of a policy server around a real receiver; no model, and it fails on demand."""

import json
import socketserver
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from actors.inference.staging import StagingReceiver
from common.places import Address, ServerPlace
from common.wire.generation import GENERATE_PATH
from common.wire.server_http import server_url
from common.wire.sockets import new_key_pair


class _UnixHttp(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class WeightServer:
    """``version`` is what it says it samples with; ``swaps`` lists the versions it loaded."""

    def __init__(self, place: ServerPlace) -> None:
        self.place = place
        self.url = server_url(place.address)
        self.keys = new_key_pair()
        """What its worker fetches weights with."""
        self.version = "default"
        self.swaps: list[int] = []
        self.asked: Counter[str] = Counter()
        """How often, by path."""
        self.answers: dict[str, bytes] = {}
        """What a path answers instead of what is right."""
        self.status: dict[str, int] = {}
        self.hanging: set[str] = set()
        """Paths that do not answer until ``let_go``."""
        self.hung = threading.Event()
        self.let_go = threading.Event()
        self.generate: Callable[[list[int], int], tuple[list[int], list[float]]] | None = None
        """(prompt, most tokens) to ids and log-probabilities, sampled as ``version``."""
        self._receiver: StagingReceiver | None = None
        self._is_updating = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self) -> None:
                path = self.path.split("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.asked[path] += 1
                if path in server.hanging:
                    server.hung.set()
                    server.let_go.wait(30)
                status = server.status.get(path, 200)
                text = server.answers.get(path)
                if text is None and status == 200:
                    status, text = server.handle(path, json.loads(body) if body else {})
                self.send_response(status)
                self.send_header("Content-Length", str(len(text or b"")))
                self.end_headers()
                self.wfile.write(text or b"")

        self._http = _UnixHttp(place.address.bind, Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def handle(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path == "/weight_info":
            return 200, json.dumps({"weight_version": self.version}).encode()
        if path == "/get_world_size":
            return 200, b'{"world_size": 1}'
        if path == GENERATE_PATH and self.generate is not None:
            ids, logprobs = self.generate(body["token_ids"], body["sampling_params"]["max_tokens"])
            return 200, json.dumps(self._generation(ids, logprobs)).encode()
        if path == "/init_weight_transfer_engine":
            self._attach(body["init_info"])
        if path == "/start_weight_update":
            if self._is_updating:
                return 500, b"an update is open"
            self._is_updating = True
        if path == "/update_weights":
            version = body["update_info"]["version"]
            try:
                assert self._receiver is not None
                self._receiver.take(version)
            except LookupError as error:
                return 500, str(error).encode()
            self.swaps.append(version)
        if path == "/finish_weight_update":
            self._is_updating = False
            self.version = body.get("weight_version", self.version)
        if path == "/update_weight_version":
            self.version = body["new_version"]
        return 200, b""

    def _generation(self, ids: list[int], logprobs: list[float]) -> dict[str, Any]:
        content = [
            {"token_id": token, "logprob": logprob}
            for token, logprob in zip(ids, logprobs, strict=True)
        ]
        spans = [{"start": 0, "end": len(ids), "version": self.version}]
        choice = {
            "token_ids": ids,
            "logprobs": {"content": content},
            "weight_versions": spans,
            "finish_reason": "length",
        }
        return {"choices": [choice]}

    def restart(self) -> None:
        """As a new process: nothing is held, nobody is known."""
        self._detach()
        self._is_updating = False
        self.version = "default"

    def _attach(self, info: dict[str, Any]) -> None:
        self._detach()
        self._receiver = StagingReceiver(
            Address(**info), server=self.place.name, rank=0, keys=self.keys
        )
        self._receiver.start()

    def _detach(self) -> None:
        if self._receiver is not None:
            self._receiver.stop()
            self._receiver = None

    def close(self) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        Path(self.place.address.bind).unlink()
        self._detach()


@contextmanager
def weight_servers(count: int) -> Iterator[list[WeightServer]]:
    with tempfile.TemporaryDirectory() as folder:
        servers = [
            WeightServer(ServerPlace(name=name, address=Address(bind=f"{folder}/{name}.http")))
            for name in (f"s{number}" for number in range(count))
        ]
        try:
            yield servers
        finally:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(WeightServer.close, servers))
