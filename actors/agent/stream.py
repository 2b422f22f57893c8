"""An episode as a stream of events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from actors.agent.events import Episode, EpisodeListener
from common.wire.records import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionPiece:
    """A piece of the action of step ``number`` was sampled."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionTaken:
    """The action of step ``number`` is whole; ``code`` is about to run, None if it has none."""

    number: int
    text: str
    code: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDone:
    """Step ``number`` is over, with its observation."""

    number: int
    step: Step


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeDone:
    """The episode is over."""

    episode: Episode


Event = ActionPiece | ActionTaken | StepDone | EpisodeDone


class _Relay:
    """An ``EpisodeListener`` that puts what it hears into a queue."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    def on_delta(self, step: int, text: str) -> None:
        self.events.put_nowait(ActionPiece(number=step, text=text))

    def on_action(self, step: int, text: str, code: str | None) -> None:
        self.events.put_nowait(ActionTaken(number=step, text=text, code=code))

    def on_step(self, number: int, step: Step) -> None:
        self.events.put_nowait(StepDone(number=number, step=step))


async def stream_events(
    run: Callable[[EpisodeListener], Awaitable[Episode]],
) -> AsyncIterator[Event]:
    """What ``run`` tells its listener, and at last the episode that it returns.

    The episode is ended when the iterator is closed.
    """
    relay = _Relay()

    async def episode() -> Episode:
        try:
            return await run(relay)
        finally:
            relay.events.put_nowait(None)

    running = asyncio.create_task(episode())
    try:
        while (event := await relay.events.get()) is not None:
            yield event
        yield EpisodeDone(episode=await running)
    finally:
        running.cancel()
        await asyncio.wait([running])
