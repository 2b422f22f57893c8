"""Asks any OpenAI-compatible server for chat completions, streamed where somebody listens.

consumes   chat messages
produces   the text of one answer, with its token counts where the server tells them
waits for  the server; each attempt has a deadline, and what failed names server, model and remedy
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import openai

from actors.agent.chat.answer import (
    AnswerStream,
    ChatAnswer,
    ChatMessage,
    as_json,
    field_of,
    first_choice,
)
from actors.agent.chat.errors import (
    DEFAULT_URL,
    KEY_VARIABLE,
    RENAMES,
    URL_VARIABLE,
    cause,
    is_passing,
    is_too_long,
    refused_parameter,
    told_error,
    url_hint,
)
from actors.agent.chat.models import ServedModel, choose_model, listed, read_models
from actors.agent.chat.stream import BrokenStreamError, read_stream
from actors.agent.conversation import ContextTooLongError
from common.chat import ACTION_END
from common.errors import PolicyServerError

log = logging.getLogger(__name__)

_NO_KEY = "none"
"""Sent where there is no key; servers on one's own machine do not look at it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
"""Between attempts, as the client library has them."""


class ChatClient:
    """One model of one server. Safe to use for many conversations at once, on one event loop."""

    def __init__(
        self,
        base_url: str = "",
        *,
        model: str = "",
        api_key: str = "",
        timeout_s: float = 120.0,
        attempts: int = 4,
    ) -> None:
        """Talk to one server; connects at the first request.

        Args:
            base_url: its address, which usually ends with ``/v1``; empty takes OPENAI_BASE_URL,
                else OpenAI's own.
            model: a name that the server knows; empty takes the only one it has.
            api_key: empty takes OPENAI_API_KEY, but only where ``base_url`` is empty, too: no key
                goes to a server that it was not meant for.
            timeout_s: longest silence within one attempt, seconds.
            attempts: tries per request, with exponential backoff, on time-outs, 429 and 5xx.
        """
        self.url = (base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        key = api_key or ("" if base_url else os.environ.get(KEY_VARIABLE, ""))
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=key or _NO_KEY,
            timeout=timeout_s,
            max_retries=max(0, attempts - 1),
        )
        self._model = model
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._served: ServedModel | None = None
        self._refused: set[str] = set()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def describe(self) -> ServedModel:
        """Name and limits of the model; asks the server once.

        Raises:
            PolicyServerError: the server does not answer, or it is not clear which model is meant.
        """
        if self._served is None:
            self._served = await self._look_up()
        return self._served

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        temperature: float,
        end: str = ACTION_END,
        on_delta: Callable[[str], None] | None = None,
    ) -> ChatAnswer:
        """Ask for one answer.

        Args:
            messages: the chat so far.
            max_tokens: longest answer, thoughts included.
            temperature: of the sampling.
            end: string that ends the answer and is part of it; empty for none.
            on_delta: takes the pieces of the answer as they come; the answer is then streamed.

        Raises:
            ContextTooLongError: the chat, or the answer to come, is too long for the model.
            PolicyServerError: all attempts failed, or the server will not take the request.
        """
        served = await self.describe()
        request: dict[str, Any] = {
            "model": served.name,
            "messages": as_json(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if end:
            request["stop"] = [end]
        if not served.keeps_tags:
            request["extra_body"] = {"skip_special_tokens": False}
        if on_delta is not None:
            try:
                return await self._streamed(request, end, on_delta)
            except BrokenStreamError as error:
                log.warning("stream broke, asking for the whole answer error=%s", error)
            except openai.APIStatusError as error:
                await self._pause(error, attempt=1)
                return await self._whole(request, end, attempt=2)
        return await self._whole(request, end)

    async def _whole(self, request: dict[str, Any], end: str, attempt: int = 1) -> ChatAnswer:
        completion = await self._ask(request)
        while (choice := first_choice(completion)) is None:
            told = told_error(completion, self.url)
            if told is None:
                shown = repr(completion)[:300]
                raise PolicyServerError(f"{self._who} answered without any choice: {shown}")
            await self._pause(told, attempt)
            attempt += 1
            completion = await self._ask(request)
        stream = AnswerStream(end)
        stream.take(field_of(choice, "message"))
        finish = field_of(choice, "finish_reason") or "stop"
        return stream.answer(finish, field_of(completion, "usage"))

    async def _pause(self, error: openai.APIStatusError, attempt: int) -> None:
        """Wait for the next attempt, unless it would not help or this was the last."""
        if attempt >= self._attempts or not is_passing(error):
            raise await self._explain(error) from error
        log.warning("server told an error, asking again error=%s", error)
        await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S))

    async def _streamed(
        self, request: dict[str, Any], end: str, on_delta: Callable[[str], None]
    ) -> ChatAnswer:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = await self._ask(request | options)
        stream, finish, usage = AnswerStream(end), "", None
        async with chunks:
            async for chunk in read_stream(chunks.response):
                if (told := told_error(chunk, self.url)) is not None:
                    raise told
                usage = field_of(chunk, "usage") or usage
                if (choice := first_choice(chunk)) is not None:
                    finish = field_of(choice, "finish_reason") or finish
                    if piece := stream.take(field_of(choice, "delta")):
                        on_delta(piece)
                if stream.is_complete and not finish:
                    finish = "stop"  # the server does not know stop strings
                    break
        if not finish:
            raise BrokenStreamError("it ended before the answer did")
        return stream.answer(finish, usage)

    async def _ask(self, request: dict[str, Any]) -> Any:
        """Send a request, without what this server was found to refuse."""
        while True:
            accepted = _without(request, self._refused)
            try:
                return await self._client.chat.completions.create(**accepted)
            except openai.BadRequestError as error:
                refused = refused_parameter(error, accepted)
                if refused is None:
                    raise await self._explain(error) from error
                log.warning("server refuses a parameter, goes on without it name=%s", refused)
                self._refused.add(refused)
            except (openai.OpenAIError, ValueError, RecursionError) as error:
                raise await self._explain(error) from error

    async def _look_up(self) -> ServedModel:
        try:
            models = await self._models()
        except openai.APIStatusError as error:
            if self._model and error.status_code not in (401, 403):
                return ServedModel(name=self._model)  # a server need not list its models
            raise await self._explain(error) from error
        except (openai.OpenAIError, ValueError) as error:
            raise await self._explain(error) from error
        return choose_model(self._model, models, self.url)

    async def _explain(self, error: Exception) -> PolicyServerError:
        if not isinstance(error, openai.OpenAIError):
            return PolicyServerError(f"{self._who} sent nonsense: {error}; {url_hint(self.url)}")
        text = f"{self._who} {cause(error, attempts=self._attempts, timeout_s=self._timeout_s)}"
        if isinstance(error, openai.NotFoundError):
            names = await self._names()
            text += f"; it has {listed(names)}" if names else f"; {url_hint(self.url)}"
        return ContextTooLongError(text) if is_too_long(error) else PolicyServerError(text)

    async def _models(self) -> tuple[ServedModel, ...]:
        answer = await self._client.models.with_raw_response.list()
        return read_models(answer.http_response.text)

    async def _names(self) -> list[str]:
        with contextlib.suppress(openai.OpenAIError, ValueError):
            return [model.name for model in await self._models()]
        return []

    @property
    def _who(self) -> str:
        return f"server {self.url}" + (f", model {self._model!r}," if self._model else "")


def _without(request: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    kept = {key: value for key, value in request.items() if key not in refused}
    for old, new in RENAMES.items():
        if old in refused and old in request and new not in refused:
            kept[new] = request[old]
    return kept
