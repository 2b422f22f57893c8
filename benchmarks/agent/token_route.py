"""A policy in token ids behind vLLM's own HTTP server: its route ``/inference/v1/generate``."""

from typing import Any

import aiohttp
import numpy as np

from actors.asked import RetryableError
from common.wire.generation import Generation, checked, version_number
from common.wire.hosting import Generate, Generated

PATH = "/inference/v1/generate"


class HttpLine:
    """Asks one server; a session of its own."""

    def __init__(self, url: str, connector: aiohttp.BaseConnector | None = None) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(connector=connector or aiohttp.TCPConnector(limit=0))

    async def generate(self, request: Generate) -> Generation:
        try:
            async with self._session.post(self._url + PATH, json=_body(request)) as response:
                response.raise_for_status()
                return checked(_answer(await response.json()))
        except (aiohttp.ClientError, OSError) as error:
            raise RetryableError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._session.close()


def _body(request: Generate) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "logprobs": 0,
        "flat_logprobs": True,
        "skip_special_tokens": False,
        "detokenize": bool(request.stop_strings),
        "stop_token_ids": list(request.stop_token_ids),
        "stop": list(request.stop_strings),
        "seed": request.seed,
    }
    return {"token_ids": request.token_ids.tolist(), "sampling_params": sampling}


def _answer(body: dict[str, Any]) -> Generated:
    (choice,) = body["choices"]
    ids = choice["token_ids"]
    versions = np.full(len(ids), -1, dtype=np.int32)
    for span in choice["weight_versions"] or []:
        versions[span["start"] : span["end"]] = version_number(span["version"])
    return Generated(
        number=0,
        token_ids=np.array(ids, dtype=np.int32),
        logprobs=np.array(
            [entry["logprob"] for entry in choice["logprobs"]["content"]], dtype=np.float32
        ),
        versions=versions,
        finish_reason=str(choice["finish_reason"]),
    )
