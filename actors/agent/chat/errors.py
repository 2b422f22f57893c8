"""Says what went wrong with a chat server, and what to do about it. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from actors.agent.chat.answer import field_of
from actors.agent.chat.stream import chunks_in

DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"

RENAMES = {"max_tokens": "max_completion_tokens"}
"""What a server that refuses the first wants instead."""
_OPTIONAL = ("stop", "temperature", "stream_options", *RENAMES, *RENAMES.values())
"""Parameters that a request can do without."""
_LONGEST_DETAIL = 400
_SHOWN_PARTS = 5
_SAID = ("message", "msg", "detail", "error", "errors", "reason", "title")
"""Where servers put what they have to say, the plainest first."""
_TOO_LARGE = 413
_TOO_LONG_STATUS = (400, _TOO_LARGE, 422)
_PASSING_STATUS = (408, 409, 429)
_SERVER_ERROR = 500

_KINDS: dict[int, type[openai.APIStatusError]] = {
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
}

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|too long|too many tokens|maximum.{0,20} length"
    r"|must have less than \d+ tokens|tokens?\W.{0,60}must be <= \d+",
    re.IGNORECASE,
)


def is_too_long(error: openai.OpenAIError) -> bool:
    """Whether a server complains of the length of the context."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in _TOO_LONG_STATUS:
        return False
    if error.status_code == _TOO_LARGE or error.code == "context_length_exceeded":
        return True
    return bool(_TOO_LONG.search(detail(error)))


def told_error(reply: Any, url: str) -> openai.APIStatusError | None:
    """The error that a server tells in the body of an answer with a good status, as gateways do.

    Args:
        reply: an answer, or a piece of one; a text where it came in an unexpected form.
        url: of the server.
    """
    if isinstance(reply, str):
        return next((e for chunk in chunks_in(reply) if (e := told_error(chunk, url))), None)
    body = field_of(reply, "error")
    if not body:
        return None
    status = _told_status(body)
    response = httpx2.Response(status, request=httpx2.Request("POST", url))
    kind = openai.InternalServerError if status >= _SERVER_ERROR else _KINDS.get(status)
    return (kind or openai.APIStatusError)(
        f"an error in the answer: {body!r:.200}", response=response, body=body
    )


def is_passing(error: openai.APIStatusError) -> bool:
    """Whether another attempt may help, by the rule of the client for the status of an answer."""
    return error.status_code in _PASSING_STATUS or error.status_code >= _SERVER_ERROR


def _told_status(body: object) -> int:
    """Status that an error would have had; 500 where it names none."""
    for name in ("code", "status", "status_code"):
        value = str(field_of(body, name))
        if value.isascii() and value.isdigit() and len(value) == 3 and value[0] in "45":
            return int(value)
        if value == "context_length_exceeded":
            return 400
    return _SERVER_ERROR


def cause(error: openai.OpenAIError, *, attempts: int, timeout_s: float) -> str:
    """Why a server gave no answer, to be read after its name."""
    match error:
        case openai.APITimeoutError():
            return (
                f"did not answer within {timeout_s:g} s ({attempts} attempts); "
                "is it overloaded, or the time-out too short?"
            )
        case openai.APIConnectionError():
            return (
                f"cannot be reached ({attempts} attempts, {error.__cause__ or error}); "
                "start it, or give the address of another one"
            )
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return (
                f"refuses the API key (status {error.status_code}: {detail(error)}); give the "
                f"right one ({KEY_VARIABLE} is used only where no address is given)"
            )
        case openai.RateLimitError() | openai.InternalServerError():
            return f"answered {error.status_code} to {attempts} attempts: {detail(error)}"
        case openai.APIStatusError():
            return f"answered {error.status_code}: {detail(error)}"
    return f"gave no usable answer: {type(error).__name__}: {error}"


def url_hint(url: str) -> str:
    """What may be wrong with an address where nothing is found."""
    if url.endswith("/v1"):
        return "is this the address of an OpenAI-compatible server?"
    return f"addresses of OpenAI-compatible servers usually end with /v1: {url}/v1"


def refused_parameter(error: openai.BadRequestError, sent: Mapping[str, Any]) -> str | None:
    """The parameter that a server complains of, if the request can do without it."""
    text = detail(error).lower()
    complains = any(word in text for word in ("unsupported", "not support", "unrecognized"))
    for name in _OPTIONAL:
        if name in sent and (error.param == name or (complains and f"'{name}'" in text)):
            return name
    return None


def detail(error: openai.APIStatusError) -> str:
    """The server's own words, shortened."""
    return (_words(error.body) or error.message)[:_LONGEST_DETAIL]


def _words(body: object, depth: int = 4) -> str:
    """What a person can read in the body of an error, in the forms that servers have for it."""
    if isinstance(body, str):
        return body.strip()
    if depth and isinstance(body, list):
        return "; ".join(filter(None, (_words(part, depth - 1) for part in body[:_SHOWN_PARTS])))
    if not depth or not isinstance(body, dict):
        return ""
    said = next((w for key in _SAID if (w := _words(body.get(key), depth - 1))), "")
    place = body.get("loc")
    if said and isinstance(place, list | tuple):
        said += f" (at {'.'.join(map(str, place))})"
    return said
