"""A folder of web answers, one JSON file each that a person can read.

Entries are written in one step, so any number of processes may read and write at once. Keys of
services are never part of an entry.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from yarl import URL

from actors.tools.web.messages import WebRequest, WebResponse

MAX_SHOWN_BODY = 4096
"""Bytes of a request's body that its entry shows; the entry's name depends on all of it."""

_DAMAGE = (ValueError, LookupError, TypeError, RecursionError)


class ResponseCache:
    """Answers by request: method, address, body and headers that are no secret."""

    def __init__(self, folder: Path) -> None:
        """Keep entries below ``folder``, which is made when the first one is kept."""
        self._folder = folder

    def path(self, request: WebRequest) -> Path:
        """The file of a request, below a folder with the name of its host."""
        digest = hashlib.blake2b(_identity(request), digest_size=16).hexdigest()
        host = re.sub(r"[^\w.-]", "_", URL(request.url).raw_host or "unknown")[:80]
        return self._folder / host / f"{digest}.json"

    def load(self, request: WebRequest) -> WebResponse | None:
        """The kept answer, or None.

        Raises:
            ValueError: the file is not an entry, or cannot be read; names it.
        """
        path = self.path(request)
        try:
            return _response(json.loads(path.read_bytes().decode("utf-8"))["response"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"cache entry '{path}' cannot be read: {error.strerror}") from error
        except _DAMAGE as error:
            text = f"{type(error).__name__}: {str(error)[:200]}"
            raise ValueError(f"cache entry '{path}' is damaged ({text}); delete it") from error

    def store(self, request: WebRequest, response: WebResponse) -> None:
        """Keep an answer, in place of an older one."""
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "request": _shown(request),
            "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "response": _written(response),
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            text = json.dumps(entry, indent=1, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _identity(request: WebRequest) -> bytes:
    headers = sorted((name.lower(), value) for name, value in request.headers.items())
    body = hashlib.blake2b(request.body, digest_size=32).hexdigest()
    return json.dumps([request.method.upper(), request.url, headers, body]).encode()


def _shown(request: WebRequest) -> dict[str, Any]:
    text = request.body[:MAX_SHOWN_BODY].decode("utf-8", "replace")
    hidden = len(request.body) - MAX_SHOWN_BODY
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": f"{text}... and {hidden} bytes" if hidden > 0 else text,
    }


def _written(response: WebResponse) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "status": response.status,
        "url": response.url,
        "content_type": response.content_type,
    }
    try:
        entry["body"] = response.body.decode("utf-8")
    except UnicodeDecodeError:
        entry["body_base64"] = base64.b64encode(response.body).decode("ascii")
    return entry


def _response(entry: dict[str, Any]) -> WebResponse:
    status, url, content_type = entry["status"], entry["url"], entry["content_type"]
    kinds = (type(status), type(url), type(content_type))
    if kinds != (int, str, str):
        raise TypeError("status, url and content_type must be a number and two texts")
    return WebResponse(status=status, url=url, content_type=content_type, body=_body(entry))


def _body(entry: dict[str, Any]) -> bytes:
    if "body" in entry:
        return str.encode(entry["body"])
    return base64.b64decode(entry["body_base64"], validate=True)
