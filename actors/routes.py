"""Which of the policy servers in rotation a request goes to: by prefix, and by load. Pure.

A server that has computed the beginning of a prompt before answers sooner, so requests with one
beginning go to one server: the one that comes first in an order of the servers that the beginning
decides by itself (rendezvous hashing; Thaler and Ravishankar, IEEE/ACM Trans. Networking 6(1),
1998). Where a server comes or goes, only its own beginnings move. A server that has much more to do
than the least busy one is passed over, so that no beginning that all prompts share overloads one,
and one that failed last is asked after the others.
"""

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.asked import PolicyLine
from common.wire.generation import Generation

_SLACK, _SLACK_SHARE = 4, 0.25
"""Requests that a server may be ahead of the least busy one: the larger of a number and a share."""


@dataclass(kw_only=True, slots=True)
class AskedServer:
    """A server as one client uses it, from its first rotation until the client lets go of it.

    ``under_way`` are its requests to it, on a ``line`` that is made for the first of them.
    """

    name: str
    failures_in_row: int = 0
    benched_until: float = 0.0
    is_lost: bool = False
    line: PolicyLine | None = None
    under_way: set["asyncio.Task[Generation]"] = field(default_factory=set)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self.under_way)

    def begin(self, post: Coroutine[Any, Any, Generation]) -> "asyncio.Task[Generation]":
        """Send a request."""
        task = asyncio.get_running_loop().create_task(post)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    def lose(self) -> None:
        """It is dead: its requests are over."""
        self.is_lost = True
        for task in self.under_way:
            task.cancel()


def chosen(servers: Sequence[AskedServer], start: Sequence[int], *, now: float) -> AskedServer:
    """The server for a prompt that begins with the token ids ``start``.

    Args:
        servers: in rotation, at least one; who is benched is asked only where all are.
        start: what prompts have in common that should go to one server.
        now: on the clock of ``benched_until``, seconds.
    """
    free = [server for server in servers if server.benched_until <= now] or list(servers)
    if len(free) == 1:
        return free[0]
    least = min(server.in_flight for server in free)
    most = least + max(_SLACK, int(least * _SLACK_SHARE))
    data = repr(list(start)).encode()
    return min(
        (server for server in free if server.in_flight <= most),
        key=lambda server: (server.failures_in_row > 0, _rank(server.name, data)),
    )


def _rank(name: str, start: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\0" + start, digest_size=8).digest()
