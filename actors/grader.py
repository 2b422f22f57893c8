"""The model that grades answers of kind ``judged``: one of a service of the configuration."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from actors.agent.chat.answer import ChatMessage
from actors.agent.chat.client import ChatClient
from common.config import Config
from common.waits.catalogue import WaitKind
from common.waits.register import waiting

_ATTEMPTS = 3
_MAX_TOKENS = 1024
"""Of a reply; a model that thinks does it here."""


@asynccontextmanager
async def started_grader(config: Config) -> AsyncIterator[Callable[[str], Awaitable[str]] | None]:
    """Takes a prompt and gives the model's reply, at temperature 0; None where none is configured.

    Raises:
        PolicyServerError: while it is asked, if the server does not answer after all attempts.
    """
    if not config.rewards.judge:
        yield None
        return
    service = config.service(config.rewards.judge)
    client = ChatClient(
        service.base_url,
        model=service.model,
        api_key=os.environ.get(service.api_key_env, "") if service.api_key_env else "",
        timeout_s=config.judge_wait_s,
        attempts=_ATTEMPTS,
    )

    async def grade(prompt: str) -> str:
        messages = [ChatMessage(role="user", content=prompt)]
        with waiting(WaitKind.GRADING):
            reply = await client.complete(messages, max_tokens=_MAX_TOKENS, temperature=0.0, end="")
        return reply.text

    try:
        yield grade
    finally:
        await client.close()
