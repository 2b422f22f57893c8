"""An actor's end of the wire keeps what it holds until the coordinator has decided its fate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from actors.link import CoordinatorLink
from common.wire.codec import Record, decode, encode
from common.wire.records import Purpose, Task, TaskLease, Trajectory
from common.wire.session import Ack, Heartbeat, Hello, HelloWanted, Rotation, Welcome
from common.wire.sockets import Wire
from tests.makers import make_trajectory
from tests.wires import Place, a_place

R = TypeVar("R", bound=Record)


class Coordinator:
    """A bare door in its place, and the one link that speaks to it."""

    def __init__(self, place: Place, wire: Wire, *, silence_s: float, resend_s: float) -> None:
        self._door = place.door
        self._peer = b""
        self.link = CoordinatorLink(
            wire, self._door.address, actor_id="a0", credit=2, kernel_level="",
            heartbeat_s=0.02, resend_s=resend_s, patience_s=silence_s,
        )  # fmt: skip
        self.revoked: list[str] = []
        self.talking = asyncio.create_task(self.link.run(self.revoked.append))

    async def hear(self, kind: type[R], *, where: Callable[[R], bool] = lambda _: True) -> R:
        while True:
            while (parcel := self._door.receive()) is None:
                await asyncio.to_thread(self._door.wait, 100)
            self._peer, record = parcel.identity, decode(parcel.frames)
            assert parcel.member == "a0"
            if isinstance(record, kind) and where(record):
                return record

    async def say(self, *records: Record) -> None:
        for record in records:
            self._door.send(self._peer, encode(record))

    async def close(self) -> None:
        self.talking.cancel()
        await asyncio.gather(self.talking, return_exceptions=True)
        self.link.close()


def play(
    scene: Callable[[Coordinator], Awaitable[None]], *, silence_s: float = 10.0,
    resend_s: float = 0.05,
) -> None:  # fmt: skip
    async def run(place: Place, wire: Wire) -> None:
        coordinator = Coordinator(place, wire, silence_s=silence_s, resend_s=resend_s)
        try:
            async with asyncio.timeout(20):
                await coordinator.hear(Hello)
                await scene(coordinator)
        finally:
            await coordinator.close()

    with a_place(["a0"]) as place, Wire(place.keys["a0"]) as wire:
        try:
            asyncio.run(run(place, wire))
        finally:
            place.door.close()


def lease(lease_id: str) -> TaskLease:
    return TaskLease(
        lease_id=lease_id, group_id="g", sample_index=0, purpose=Purpose.TRAIN, temperature=1.0,
        task=Task(task_id="t", question="?", answers=("a",)), serial=1,
    )  # fmt: skip


def test_a_trajectory_is_sent_again_until_it_is_acknowledged() -> None:
    async def scene(coordinator: Coordinator) -> None:
        await coordinator.say(lease("a"))
        assert await coordinator.link.next_lease() is not None
        await coordinator.link.deliver(make_trajectory("a"))
        for _ in range(3):
            assert (await coordinator.hear(Trajectory)).trajectory_id == "a"
        await coordinator.hear(Heartbeat, where=lambda beat: beat.leases == ("a",))
        await coordinator.say(Ack(trajectory_id="a"))
        await coordinator.hear(Heartbeat, where=lambda beat: beat.leases == ())

    play(scene)


def test_what_a_welcome_does_not_name_is_over() -> None:
    async def scene(coordinator: Coordinator) -> None:
        await coordinator.say(lease("a"), lease("b"), Welcome(schema_version=0, leases=("b",)))
        await coordinator.hear(Heartbeat, where=lambda beat: beat.leases == ("b",))

        assert coordinator.revoked == ["a"]
        assert (held := await coordinator.link.next_lease()) is not None
        assert held.lease_id == "b"
        await coordinator.link.deliver(make_trajectory("a"))
        await coordinator.link.deliver(make_trajectory("b"))
        assert (await coordinator.hear(Trajectory)).trajectory_id == "b"

    play(scene)


def test_a_coordinator_that_began_again_is_told_nothing_of_the_serials_before() -> None:
    """Else it would take the first leases that it sends for lost on their way."""

    async def scene(coordinator: Coordinator) -> None:
        await coordinator.say(lease("a"))
        assert await coordinator.link.next_lease() is not None
        await coordinator.hear(Heartbeat, where=lambda beat: beat.seen == 1)

        await coordinator.say(HelloWanted())
        await coordinator.hear(Hello)
        assert (await coordinator.hear(Heartbeat)).seen == 0

    play(scene)


def test_the_rotations_of_a_coordinator_that_began_again_are_numbered_anew() -> None:
    async def scene(coordinator: Coordinator) -> None:
        heard: list[int] = []
        coordinator.link.on_rotation = lambda rotation: heard.append(rotation.number)
        for number in (5, 4):
            await coordinator.say(Rotation(number=number, asked=(), lost=()))
        await coordinator.hear(Heartbeat, where=lambda beat: beat.rotation == 5)
        await coordinator.say(HelloWanted())
        await coordinator.hear(Hello)
        assert (await coordinator.hear(Heartbeat)).rotation == 0

        await coordinator.say(Welcome(schema_version=0), Rotation(number=1, asked=(), lost=()))

        await coordinator.hear(Heartbeat, where=lambda beat: beat.rotation == 1)
        assert heard == [5, 1]

    play(scene)


def test_a_coordinator_that_began_again_hears_what_is_held_and_gets_it_at_once() -> None:
    async def scene(coordinator: Coordinator) -> None:
        await coordinator.say(lease("a"), lease("b"), lease("c"))
        for _ in range(3):
            assert await coordinator.link.next_lease() is not None
        for lease_id in ("a", "b"):
            await coordinator.link.deliver(make_trajectory(lease_id))
            assert (await coordinator.hear(Trajectory)).trajectory_id == lease_id

        await coordinator.hear(Heartbeat)
        await coordinator.say(HelloWanted())
        hello = await coordinator.hear(Hello)
        await coordinator.say(Welcome(schema_version=0, leases=("b", "c")))

        assert hello.leases == ("a", "b", "c")
        assert (await coordinator.hear(Trajectory)).trajectory_id == "b"
        assert coordinator.revoked == ["a"]

    play(scene, resend_s=1000.0)


def test_time_in_which_the_actor_itself_stood_still_is_no_silence() -> None:
    async def scene(coordinator: Coordinator) -> None:
        await coordinator.hear(Heartbeat)
        time.sleep(0.6)  # the event loop stands still: that is the point
        for _ in range(2):
            await coordinator.hear(Heartbeat)
        assert not coordinator.talking.done()

    play(scene, silence_s=0.5)


def test_a_coordinator_that_says_nothing_is_named() -> None:
    async def scene(coordinator: Coordinator) -> None:
        with pytest.raises(TimeoutError, match=r"has been silent for .*transport\.silence_s"):
            await coordinator.talking

    play(scene, silence_s=0.1)
