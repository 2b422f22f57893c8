"""Plays the deep-search example again without keys or network: docs/deep_search.md.

``python docs/examples/deep_search/replay.py`` from the folder of the clone. Kernel, sandbox, tools
and MCP server are the real ones; the web is replayed from ``web/``, the model's part is read from
``actions.json``.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUESTION = (
    "Which item of the harbour archive did the designer of the Grey Skerry lighthouse write in the "
    "year in which it was first lit? Answer with its mark."
)
MODEL = "played"


def actions_done(messages: list[dict[str, str]]) -> int:
    """Answers since the question: the worked examples of the system prompt come before it."""
    asked = next(n for n, message in enumerate(messages) if QUESTION in message["content"])
    return sum(message["role"] == "assistant" for message in messages[asked:])


class PlayedModel(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose next answer is the next written action."""

    actions = tuple(json.loads((HERE / "actions.json").read_text(encoding="utf-8")))

    def do_GET(self) -> None:
        """``/v1/models``."""
        self._send({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        """``/v1/chat/completions``, streamed or not."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        turn = actions_done(body["messages"])
        part = {"role": "assistant", "content": self.actions[turn]}
        head = {"id": f"played-{turn}", "created": 0, "model": MODEL}
        choice = {"index": 0, "finish_reason": "stop"}
        if body.get("stream"):
            chunk = {"object": "chat.completion.chunk", "choices": [choice | {"delta": part}]}
            self._send_events(head | chunk)
        else:
            self._send(
                head | {"object": "chat.completion", "choices": [choice | {"message": part}]}
            )

    def _send(self, content: dict[str, Any]) -> None:
        self._write("application/json", json.dumps(content))

    def _send_events(self, event: dict[str, Any]) -> None:
        self._write("text/event-stream", f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    def _write(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        """Say nothing; the agent's work is what is to be seen."""


def main() -> int:
    """Run the agent on the question; its exit status."""
    with ThreadingHTTPServer(("127.0.0.1", 0), PlayedModel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        command = [sys.executable, "-m", "launch.cli", "agent", QUESTION, "--url", url]
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        done = subprocess.run(
            [*command, "--config", str(HERE / "replay.toml"), *sys.argv[1:]],
            env=os.environ | {"PATH": path},
            check=False,
        )
        server.shutdown()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
