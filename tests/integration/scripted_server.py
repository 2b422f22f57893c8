"""A policy server that plays scripts: the wire format of the real one, no model.

``python scripted_server.py SOCKET MODEL_FOLDER SCRIPTS.json`` where the scripts map a question to
the list of its actions. Which action is due is read off the number of observations in the prompt.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web

from actors.tokenizer import FileTokenizer
from common.chat import escape_tags


def generate_response(token_ids: list[int]) -> dict[str, object]:
    """What the real server answers for ``token_ids``, sampled with certainty by version 0."""
    content = [{"token_id": token, "logprob": 0.0} for token in token_ids]
    return {
        "choices": [
            {
                "token_ids": token_ids,
                "logprobs": {"content": content},
                "weight_versions": [{"start": 0, "end": len(token_ids), "version": "0"}],
                "finish_reason": "stop",
            }
        ]
    }


async def serve(socket: str, model: Path, scripts: dict[str, list[str]]) -> None:
    tokenizer = FileTokenizer(model)
    by_prompt = {escape_tags(question): actions for question, actions in scripts.items()}

    async def generate(request: web.Request) -> web.Response:
        text = tokenizer.decode((await request.json())["token_ids"])
        turns = text.split("user\n")[1:]
        asked = [turn.split("<|im_end|>", 1)[0] for turn in turns]
        # Before it are the worked examples of the system prompt.
        start = next(n for n, question in enumerate(asked) if question in by_prompt)
        done = "".join(turns[start:]).count("<output>")
        action = by_prompt[asked[start]][done]
        return web.json_response(generate_response(tokenizer.encode(action)))

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/inference/v1/generate", generate)
    application.router.add_get("/health", lambda request: web.Response())
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())))
