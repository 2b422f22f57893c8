"""The ``visual_qa`` tool: a question about an image, asked of a vision language model."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from actors.tools.arguments import cut_text, short_text, valid_text
from actors.tools.attached_files import attached_bytes
from actors.tools.documents.kinds import image_type
from actors.tools.tool import FunctionTool
from actors.tools.web.client import WebClient
from actors.tools.web.rules import MAX_URL_CHARACTERS, PageRules
from actors.tools.web.service import ServiceAddress, WebService, encoded
from common.config import Service, Vision
from common.errors import ConfigError
from common.wire.records import Task

MAX_IMAGE_BYTES = 20 << 20

MAX_QUESTION_CHARACTERS = 8000
"""The rest of a longer question is left out."""

_PIECE_BYTES = 3 << 15
_URI = b"data:,the-image"


class VisualQa(FunctionTool):
    """``visual_qa`` by a server that speaks OpenAI's chat completions."""

    def __init__(
        self, vision: Vision, service: Service, rules: PageRules, client: WebClient
    ) -> None:
        """Ask ``vision.model`` of ``service``; images are fetched from where ``rules`` allow.

        Raises:
            ConfigError: no address or no model is configured.
        """
        if not vision.model:
            raise ConfigError("agent.tools has 'visual_qa', so tools.vision.model must be set")
        if not service.base_url:
            raise ConfigError(
                "agent.tools has 'visual_qa', so tools.vision.service must name a table "
                "[services.NAME] with a base_url"
            )
        super().__init__(self.visual_qa)
        self._vision = vision
        self._rules = rules
        self._client = client
        address = ServiceAddress(
            name=f"the vision model {vision.model}",
            url=service.base_url.rstrip("/"),
            key_variable=service.api_key_env,
        )
        self._service = WebService(client, address)

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that it needs."""
        return self._service.variables

    async def visual_qa(self, image: str | bytes, question: str, *, task: Task) -> str:
        """Ask a question about an image; gives the answer of a vision model.

        The image is the name of an attached file, an https address, or the bytes of a PNG, JPEG,
        GIF or WebP file.
        """
        data = await self._image(image, task)
        media_type = image_type(data)
        if not media_type:
            raise ValueError("this is no image: expected a PNG, JPEG, GIF, WebP or BMP file")
        if len(data) > MAX_IMAGE_BYTES:
            raise ValueError(
                f"the image has {len(data)} bytes, more than {MAX_IMAGE_BYTES}; make it smaller"
            )
        asked = cut_text(question, "question", MAX_QUESTION_CHARACTERS)
        body = self._body(asked).replace(_URI, await asyncio.to_thread(_data_uri, data, media_type))
        return _answer(await self._service.post("/chat/completions", body))

    async def start(self) -> None:
        """Read the key."""
        await self._service.start()

    async def close(self) -> None:
        """Give the client back."""
        await self._service.close()

    def _body(self, question: str) -> bytes:
        content = [
            {"type": "text", "text": question.replace(_URI.decode(), "")},
            {"type": "image_url", "image_url": {"url": _URI.decode()}},
        ]
        body = {
            "model": self._vision.model,
            "max_tokens": self._vision.max_tokens,
            "messages": [{"role": "user", "content": content}],
        }
        return encoded(body)

    async def _image(self, image: object, task: Task) -> bytes:
        if isinstance(image, bytes):
            return image
        name = short_text(image, "image", MAX_URL_CHARACTERS)
        if not name.startswith(("http://", "https://")):
            return await attached_bytes(task, name)
        response = await self._client.get_page(name, self._rules)
        if not response.ok:
            raise ValueError(f"{response.url} answered HTTP {response.status}")
        return response.body


def _data_uri(data: bytes, media_type: str) -> bytes:
    """In pieces: between two of them the event loop gets its turn."""
    view = memoryview(data)
    pieces = (
        base64.b64encode(view[start : start + _PIECE_BYTES])
        for start in range(0, len(view), _PIECE_BYTES)
    )
    return f"data:{media_type};base64,".encode() + b"".join(pieces)


def _answer(answer: Mapping[str, Any]) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the vision model answered in an unknown shape: {error!r}") from None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the vision model gave an empty answer")
    return valid_text(text.strip())
