"""A conversation of the agent with a scripted chat server, begun and ready to sample."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.agent.chat.client import ChatClient
from actors.agent.chat.conversation import ChatConversation
from actors.agent.conversation import Opening
from tests.chat_server import ChatServer

T = TypeVar("T")
ACTION = "<think>add them</think><code>print(1 + 1)</code>"
OPENING = Opening(system="Work in a notebook.", task="How many are 1 and 1?")


def talk(
    server: ChatServer,
    work: Callable[[ChatConversation], Awaitable[T]],
    *,
    direct: bool = False,
    timeout_s: float = 5.0,
    attempts: int = 2,
    model: str = "",
    api_key: str = "",
) -> T:
    """Begin a conversation with ``server`` and do ``work`` in it."""

    async def run() -> T:
        client = ChatClient(
            server.url, model=model, api_key=api_key, timeout_s=timeout_s, attempts=attempts
        )
        try:
            conversation = ChatConversation(client, limit=4000, temperature=0.5, direct=direct)
            conversation.begin(OPENING)
            return await work(conversation)
        finally:
            await client.close()

    return asyncio.run(run())


def sampled(server: ChatServer, **options: object) -> tuple[str, list[str]]:
    """The first action and the pieces it came in."""
    pieces: list[str] = []

    async def work(conversation: ChatConversation) -> str:
        return (await conversation.sample(0, max_tokens=50, on_delta=pieces.append)).text

    return talk(server, work, **options), pieces  # type: ignore[arg-type]
