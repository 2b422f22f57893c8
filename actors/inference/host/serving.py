"""Serves a policy server's door: keeps an engine alive, and has it do what members ask.

consumes   requests of actors, orders of the learner (``common.wire.hosting``)
produces   an answer to each
waits for  the engine: to start, to sample, to load weights
unblocked by  the engine, or its end: then whoever waits is told to ask again, elsewhere or later

An engine that ends is started again, later each time and so many times an hour; the weights of the
run come back to it as to a new server: the learner sees that it samples with others.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from actors.inference.host.desk import Desk, is_cleared
from actors.inference.host.engine import Engine, EngineGoneError, StartEngine, WrongRequestError
from actors.inference.staging import StagingReceiver
from common.config.processes import MAX_CREDIT
from common.errors import PolicyServerError, ProtocolError
from common.places import LEARNER
from common.restarts import RestartBook
from common.telemetry.quiet_log import QuietLog
from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.lag import LoopLag
from common.waits.records import Waiting, WaitReport
from common.waits.register import WAITS, chosen, counted, waiting
from common.waits.sentences import describe_wait
from common.wire.asynchronous import AsyncDoor
from common.wire.codec import decode, encode
from common.wire.hosting import (
    Admit,
    Answer,
    AskState,
    Attach,
    Fate,
    Generate,
    GiveUp,
    Obeyed,
    ServerLoad,
    ServerState,
    Swap,
    not_done,
)
from common.wire.keys import KeyPair
from common.wire.parcels import Parcel
from common.wire.sockets import PeerLimits

log = logging.getLogger(__name__)

HOST_LIMITS = PeerLimits(queued_out=2 * MAX_CREDIT)
"""Of one peer of a host."""

_AWAY = "vLLM is starting"
_ENDED = "vLLM has ended, and the request with it"
_OfLearner = Admit | Attach | Swap
Order = _OfLearner | AskState


class Host:
    """The one process that an engine is reached through."""

    def __init__(self, door: AsyncDoor, start: StartEngine, *, name: str, keys: KeyPair) -> None:
        """Serve at ``door`` what ``start`` starts; ``keys`` are those of the server ``name``."""
        self._door = door
        self._start = start
        self._name = name
        self._keys = keys
        self._engine: Engine | None = None
        self._desk = Desk()
        self._receiver: StagingReceiver | None = None
        self._attaching = asyncio.Lock()
        self._swapping = asyncio.Lock()
        self._quiet = QuietLog(log)
        self._lag = LoopLag()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until an engine cannot be had any more; the door is closed then.

        ``on_ready`` is called whenever an engine samples.

        Raises:
            PolicyServerError: vLLM ended too often.
            Exception: it did not even start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                beside = (self._serve(), self._lag.run())
                tasks = [group.create_task(work) for work in beside]
                try:
                    await self._keep_engine(on_ready)
                finally:
                    for task in tasks:
                        task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._door.close()
            if self._receiver is not None:
                self._receiver.stop()

    # ---- the engine --------------------------------------------------------------------------

    async def _keep_engine(self, on_ready: Callable[[], None]) -> None:
        book, has_worked = RestartBook(), False
        while True:
            try:
                how = await self._live(on_ready)
                has_worked = True
            except Exception as error:
                if not has_worked:
                    raise
                how = f"vLLM did not start: {error}"
            wait_s = book.ended(time.monotonic(), has_worked=True)
            if wait_s is None:
                raise PolicyServerError(f"{how}; it ended {book.in_last_hour} times in an hour")
            log.warning("%s; it is started again in %.0f s", how, wait_s)
            with waiting(WaitKind.ENGINE_AGAIN, self._name, detail=how):
                await asyncio.sleep(wait_s)

    async def _live(self, on_ready: Callable[[], None]) -> str:
        """One life of an engine; how it ended."""
        with waiting(WaitKind.ENGINE_START, self._name):
            engine = await self._start()
        self._engine = engine
        try:
            on_ready()
            return await engine.ended()
        finally:
            self._engine = None
            self._desk.clear()
            engine.close()

    # ---- what is asked -----------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            parcel = await self._door.receive()
            try:
                question = decode(parcel.frames)
            except ProtocolError as error:
                self._ignore(parcel, str(error))
                continue
            if isinstance(question, GiveUp):
                self._desk.give_up(parcel.identity, question.number)
            elif isinstance(question, Generate | AskState) or (
                isinstance(question, _OfLearner) and parcel.member == LEARNER
            ):
                await self._begin(parcel.identity, question)
            else:
                self._ignore(parcel, f"{type(question).__name__} is not for it to say")

    def _ignore(self, parcel: Parcel, reason: str) -> None:
        self._quiet.warning("ignored a message", "from=%s reason=%s", parcel.member, reason)

    async def _begin(self, peer: bytes, question: Generate | Order) -> None:
        if self._desk.is_full(peer, question.number):
            reason = "more requests than a member may have, or two of one number"
            await self._send(peer, not_done(question.number, Fate.FAILED, reason))
        else:
            self._desk.begin(peer, question.number, self._answer(peer, question))

    async def _answer(self, peer: bytes, question: Generate | Order) -> None:
        number = question.number
        try:
            answer = await self._work(question)
        except asyncio.CancelledError as error:
            if not is_cleared(error):
                raise
            answer = not_done(number, Fate.AWAY, _ENDED)
        except EngineGoneError as error:
            answer = not_done(number, Fate.AWAY, str(error) or _ENDED)
        except WrongRequestError as error:
            answer = not_done(number, Fate.WRONG, str(error))
        except Exception as error:
            self._quiet.exception("a request failed", "kind=%s", type(question).__name__)
            answer = not_done(number, Fate.FAILED, f"{type(error).__name__}: {error}")
        await self._send(peer, answer)

    async def _send(self, peer: bytes, answer: Answer) -> None:
        await self._door.send(peer, encode(answer))

    async def _work(self, question: Generate | Order) -> Answer:
        if isinstance(question, Admit):
            return self._admit(question)
        if isinstance(question, Attach):
            return await self._attach(question)
        if self._engine is None:
            raise EngineGoneError(self._why_away())
        if isinstance(question, Generate):
            with waiting(WaitKind.SAMPLING, self._name):
                return await self._engine.generate(question)
        if isinstance(question, Swap):
            return await self._swap(self._engine, question)
        label, load = await self._engine.version(), self._engine.load()
        report = self._report(load)
        return ServerState(number=question.number, version=label, load=load, report=report)

    def _waits(self) -> list[Waiting]:
        """Of this host, the oldest first."""
        return [wait for wait in WAITS.waits() if Part.SERVER in CATALOGUE[wait.kind].who]

    def _report(self, load: ServerLoad) -> WaitReport:
        waits = self._waits()
        return WaitReport(
            waits=chosen(waits),
            counts=counted(waits),
            lag_s=self._lag.take(),
            queues={"running": load.running, "waiting": load.waiting},
        )

    def _why_away(self) -> str:
        """Why there is no engine now: it is starting, or is going to be started again."""
        waits = self._waits()
        return f"{_AWAY}: {describe_wait(waits[0], 'it')}" if waits else _AWAY

    def _admit(self, order: Admit) -> Obeyed:
        for guest in order.guests:
            self._door.admit(guest.key, guest.name)
        return Obeyed(number=order.number)

    async def _attach(self, order: Attach) -> Obeyed:
        """Fetch weights there; what was fetched elsewhere is forgotten."""
        async with self._attaching:
            if self._receiver is not None:
                await asyncio.to_thread(self._receiver.stop)
            self._receiver = StagingReceiver(order.publisher, server=self._name, keys=self._keys)
            self._receiver.start()
        return Obeyed(number=order.number)

    async def _swap(self, engine: Engine, order: Swap) -> Obeyed:
        if self._receiver is None:
            raise LookupError("nobody said yet where weights are to be fetched")
        async with self._swapping:
            staged = self._receiver.take(order.version)
            with waiting(WaitKind.LOADING, self._name, detail=str(order.version)):
                paused = await engine.swap(staged)
        return Obeyed(number=order.number, seconds_paused=paused)
