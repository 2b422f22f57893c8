"""Reads what a wait that was provoked says of itself."""

import asyncio
import time
from collections.abc import Callable

from common.waits.catalogue import WaitKind
from common.waits.records import Waiting
from common.waits.register import WAITS
from common.waits.sentences import describe_wait

PATIENCE_S = 60.0


def found(kind: WaitKind, where: Callable[[Waiting], bool] = lambda _: True) -> Waiting | None:
    """The oldest wait of that kind in this process now."""
    return next((wait for wait in WAITS.waits() if wait.kind is kind and where(wait)), None)


def said(kind: WaitKind, who: str = "") -> str:
    """The sentence of a wait of that kind, without its seconds, once there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while (wait := found(kind)) is None:
        assert time.monotonic() < deadline, f"nobody waits by '{kind}'"
        time.sleep(0.005)
    return sentence(wait, who)


async def said_soon(kind: WaitKind, who: str = "") -> str:
    """The same in an event loop, in which it is to happen."""
    async with asyncio.timeout(PATIENCE_S):
        while (wait := found(kind)) is None:
            await asyncio.sleep(0.005)
    return sentence(wait, who)


def sentence(wait: Waiting, who: str = "") -> str:
    """In words, without seconds."""
    before, _, after = describe_wait(wait, who).partition(" waits ")
    return f"{before} waits for {after.partition(' for ')[2]}"
