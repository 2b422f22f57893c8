"""An OpenAI-compatible chat server on loopback that answers from a script; no model.

It runs on a thread of its own, so that synchronous code can talk to it.
"""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

PIECE = 7
"""Characters of a streamed piece: tags are torn apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the model "writes": all of it, also what its server then cuts off."""

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"


class Raw(str):
    """A body, or a piece of a stream, that is sent as it stands."""


Messages = list[dict[str, str]]
Script = Callable[[Messages], Reply | str]


def replies(*texts: Reply | str) -> Script:
    """Answer with ``texts`` in turn, by the number of answers in the chat."""
    return lambda messages: texts[actions_in(messages)]


def actions_in(messages: Messages) -> int:
    """Actions that a chat holds behind its worked examples; a reminder stands for one."""
    work = work_in(messages)
    reminders = sum(message["content"].count("Nothing was run:") for message in work)
    return reminders + sum(message["role"] == "assistant" for message in work)


def work_in(messages: Messages) -> Messages:
    """A chat from its task on, without system prompt and worked examples."""
    asked = [
        number
        for number, message in enumerate(messages)
        if message["role"] == "user"
        and not message["content"].startswith(("<output>", "Your code printed:"))
    ]
    return messages[asked[-1] :]


def in_turn(*texts: Reply | str) -> Script:
    """Answer with ``texts`` in turn, whatever is asked."""
    left = deque(texts)
    return lambda messages: left.popleft()


def tokens_of(text: str) -> int:
    """How this server counts: a token per digit, else per four characters."""
    digits = sum(letter.isdigit() for letter in text)
    return digits - (digits - len(text)) // 4


class ChatServer:
    """Serves ``/v1/chat/completions`` and ``/v1/models`` in a ``with`` block."""

    def __init__(
        self,
        script: Script,
        *,
        models: Sequence[str] = ("scripted",),
        max_model_len: int | None = None,
        owned_by: str = "somebody",
        knows_stop: bool = True,
        tells_usage: bool = True,
        refuses: Sequence[str] = (),
        reasoning_field: str = "reasoning_content",
        faults: Sequence[int | str | tuple[int, Any] | None] = (),
        api_key: str = "",
        noise: Sequence[Any] = (),
        listing: Any = None,
        parts: bool = False,
        told: Any = None,
    ) -> None:
        """Make a server.

        ``faults`` of the first requests: a status, a status with a body, ``drop`` mid-answer,
        ``hang``, ``told`` (a stream of nothing but the event ``told``), None. ``noise`` is sent
        between the pieces of a stream, ``listing`` in place of the list of models; ``parts``:
        contents come as lists of parts.
        """
        self._noise, self._listing, self._parts = list(noise), listing, parts
        self._told = told
        self._script, self._models, self._max_model_len = script, list(models), max_model_len
        self._owned_by, self._knows_stop, self._tells_usage = owned_by, knows_stop, tells_usage
        self._refuses, self._reasoning_field = tuple(refuses), reasoning_field
        self._faults, self._api_key = deque(faults), api_key
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = self._call(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _start(self) -> str:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}/v1"

    async def _list(self, request: web.Request) -> web.Response:
        if (refusal := self._unauthorised(request)) is not None:
            return refusal
        extra = {} if self._max_model_len is None else {"max_model_len": self._max_model_len}
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": self._owned_by} | extra
            for name in self._models
        ]
        listing = {"object": "list", "data": models} if self._listing is None else self._listing
        return web.json_response(listing)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request)) is not None:
            return refusal
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        fault = self._faults.popleft() if self._faults else None
        if isinstance(fault, int):
            return _error(fault, "something went wrong")
        if isinstance(fault, tuple):
            kind = "application/json" if fault[0] == 200 else "text/plain"
            return web.Response(status=fault[0], text=_data(fault[1]), content_type=kind)
        if fault == "told":
            text = f"data: {json.dumps(self._told)}\n\n"
            return web.Response(text=text, content_type="text/event-stream")
        if fault == "hang":
            await asyncio.Event().wait()
        if body["model"] not in self._models:
            return _error(404, f"The model `{body['model']}` does not exist.")
        for name in self._refuses:
            if name in body:
                return _error(400, f"Unsupported parameter: '{name}' is not supported.", name)
        prompt = sum(tokens_of(message["content"]) for message in body["messages"])
        limit = self._max_model_len
        if limit is not None and prompt + body.get("max_tokens", 0) > limit:
            return _error(400, f"maximum context length is {limit}, not {prompt}")
        reply = self._script(body["messages"])
        reply = Reply(text=reply) if isinstance(reply, str) else reply
        text = self._cut(reply.text, body)
        if body.get("stream"):
            return await self._stream(request, body, reply, text, drop=fault == "drop")
        content = self._content(text)
        message = {"role": "assistant", "content": content, self._reasoning_field: reply.reasoning}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        return web.json_response(
            self._envelope(body, "chat.completion")
            | {"choices": [choice]}
            | self._usage(body, reply)
        )

    async def _stream(
        self, request: web.Request, body: dict[str, Any], reply: Reply, text: str, *, drop: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = [{self._reasoning_field: piece} for piece in _pieces(reply.reasoning)]
        deltas += [{"content": self._content(piece)} for piece in _pieces(text)]
        envelope = self._envelope(body, "chat.completion.chunk")
        for number, delta in enumerate(deltas):
            if drop and number == len(deltas) // 2:
                assert request.transport is not None
                request.transport.abort()
                return response
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await _send(response, envelope | {"choices": [choice]})
            for chunk in self._noise:
                await _send(response, chunk)
        choice = {"index": 0, "delta": {}, "finish_reason": reply.finish_reason}
        await _send(response, envelope | {"choices": [choice]})
        if "stream_options" in body and (usage := self._usage(body, reply)):
            await _send(response, envelope | {"choices": []} | usage)
        await response.write(b"data: [DONE]\n\n")
        return response

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self._parts else text

    def _cut(self, text: str, body: dict[str, Any]) -> str:
        """As servers do it: the stop string is not part of the answer."""
        for stop in body.get("stop", []) if self._knows_stop else []:
            text = text.partition(stop)[0]
        return text

    def _usage(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        if not self._tells_usage:
            return {}
        prompt = sum(tokens_of(message["content"]) for message in body["messages"])
        answer = tokens_of(reply.reasoning) + tokens_of(reply.text)
        counts = {"prompt_tokens": prompt, "completion_tokens": answer}
        return {"usage": counts | {"total_tokens": prompt + answer}}

    def _envelope(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {"id": "chat-1", "object": kind, "created": 0, "model": body["model"]}

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        if self._api_key and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return _error(401, "Incorrect API key provided.")
        return None


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(f"data: {_data(chunk)}\n\n".encode())


def _data(chunk: Any) -> str:
    return chunk if isinstance(chunk, Raw) else json.dumps(chunk)


def _error(status: int, message: str, parameter: str | None = None) -> web.Response:
    error = {"message": message, "type": "error", "param": parameter, "code": status}
    return web.json_response({"error": error}, status=status)
