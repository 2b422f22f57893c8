"""A line to the host of a policy server, over the run's own sockets.

consumes   requests; answers of the host
produces   requests with numbers, the answers to those who asked
waits for  answers, without a deadline: who asks has one, and gives up what is not answered in time
unblocked by  the host; the end of its process, which fails everything that is under way
"""

import asyncio
import dataclasses
import itertools
import logging
import secrets
from functools import partial

from actors.asked import RetryableError, UnreachableError, WrongPromptError
from common.errors import ProtocolError
from common.places import Address
from common.wire.codec import decode, encode
from common.wire.generation import Generation, checked
from common.wire.hosting import (
    AskState,
    Fate,
    Generate,
    Generated,
    GiveUp,
    NotDone,
    Obeyed,
    ServerState,
)
from common.wire.sockets import Wire

log = logging.getLogger(__name__)

_Reply = Generated | ServerState | Obeyed


_REFUSED_S = 0.5
"""After a host knew no such member, until it is asked again: it may have joined just now."""


class HostLine:
    """Connects at once, and again whenever the connection is lost; made in a running loop."""

    def __init__(self, wire: Wire, address: Address, *, who: str) -> None:
        """Speak as the member ``who``, whose keys ``wire`` has."""
        self._address = address
        identity = f"{who}#{secrets.token_hex(16)}".encode()
        self._connect = partial(wire.connect_async, address, identity=identity, watched=True)
        self._line = self._connect()
        self._refusal = ""
        """Why nothing can be asked now."""
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Reply]] = {}
        self._keeping = asyncio.get_running_loop().create_task(self._keep())
        self._sending: set[asyncio.Task[None]] = set()

    async def generate(self, request: Generate) -> Generation:
        """See ``PolicyLine``."""
        answer = await self._ask(dataclasses.replace(request, number=next(self._numbers)))
        if not isinstance(answer, Generated):
            raise RetryableError(f"{self._address} answered {type(answer).__name__}")
        return checked(answer)

    async def state(self) -> ServerState:
        """How the server is.

        Raises:
            RetryableError: it did not say.
        """
        answer = await self._ask(AskState(number=next(self._numbers)))
        if not isinstance(answer, ServerState):
            raise RetryableError(f"{self._address} answered {type(answer).__name__}")
        return answer

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = (self._keeping, *self._sending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail("the line is closed")
        self._line.close()

    async def _ask(self, question: Generate | AskState) -> _Reply:
        if self._refusal:
            raise UnreachableError(self._refusal)
        reply = asyncio.get_running_loop().create_future()
        self._waiting[question.number] = reply
        try:
            self._post(question)
            answer: _Reply = await reply
            return answer
        finally:
            if self._waiting.pop(question.number, None) is not None and reply.cancelled():
                self._post(GiveUp(number=question.number))

    def _post(self, record: Generate | AskState | GiveUp) -> None:
        """Send, without waiting: on a line that has just been refused that would have no end."""
        task = asyncio.get_running_loop().create_task(self._line.send(encode(record)))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _keep(self) -> None:
        """Have a line, and another where it was refused."""
        while True:
            receiving = asyncio.get_running_loop().create_task(self._receive())
            try:
                await self._refused()
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
            await asyncio.sleep(_REFUSED_S)
            self._line.close()
            self._line, self._refusal = self._connect(), ""

    async def _receive(self) -> None:
        while True:
            try:
                answer = decode(await self._line.receive())
            except ProtocolError as error:
                log.warning("a policy server sent what cannot be read server=%s reason=%s",
                            self._address, error)  # fmt: skip
                continue
            if isinstance(answer, Generated | ServerState | Obeyed | NotDone):
                reply = self._waiting.pop(answer.number, None)
                if reply is not None and not reply.done():
                    _settle(reply, answer)

    async def _refused(self) -> None:
        """Return when the line leads nowhere any more."""
        while not await self._line.lost():
            self._fail(f"{self._address} does not listen, or no longer")
        self._refusal = f"{self._address} does not let us in"
        self._fail(self._refusal)

    def _fail(self, reason: str) -> None:
        for number, reply in list(self._waiting.items()):
            if not reply.done():
                reply.set_exception(UnreachableError(reason))
                # Should it come to the next life of the host, nobody waits for it.
                if not (self._keeping.done() or self._refusal):
                    self._post(GiveUp(number=number))


def _settle(reply: "asyncio.Future[_Reply]", answer: _Reply | NotDone) -> None:
    if not isinstance(answer, NotDone):
        reply.set_result(answer)
    elif answer.fate is Fate.WRONG:
        reply.set_exception(WrongPromptError(answer.reason))
    elif answer.fate is Fate.AWAY:
        reply.set_exception(UnreachableError(answer.reason))
    else:
        reply.set_exception(RetryableError(answer.reason))
