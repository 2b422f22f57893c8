"""A client has lines to whom it may ask, and to whom it still waits for, and to nobody else."""

import asyncio
import random
from pathlib import Path

import numpy as np

from actors.policy import PolicyClient
from actors.wiring import Following
from common.config import Config
from common.places import Address
from common.wire.generation import Generation
from common.wire.hosting import Generate, Generated
from common.wire.session import Asked, Rotation
from common.wire.sockets import Wire
from tests.played_policy import ASKER, PlayedPolicy, answer

NAMES = ("s0", "s1", "s2")
HISTORIES, EVENTS = 150, 40


class PlayedLine:
    """Answers when the test says so; whatever is wrong in the order of calls is a failure."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = True
        self.waiting: list[asyncio.Future[Generation]] = []

    async def generate(self, request: Generate) -> Generation:
        assert self.is_open, f"{self.name} was asked on a line that is closed"
        reply: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self.waiting.append(reply)
        try:
            return await reply
        finally:
            self.waiting.remove(reply)

    async def close(self) -> None:
        assert self.is_open, f"the line to {self.name} was closed twice"
        self.is_open = False
        assert not self.waiting, f"{self.name} had requests under way"


class History:
    """A client, the lines that it made, and which of them should be open."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lines: list[PlayedLine] = []
        self.requests: list[asyncio.Task[Generation]] = []
        self.rotation: set[str] = set()
        self.client = PolicyClient((), self.connect, timeout_s=60, attempts=1, backoff_s=0.0)

    def connect(self, name: str) -> PlayedLine:
        assert name in self.rotation
        self.lines.append(PlayedLine(name))
        return self.lines[-1]

    @property
    def open(self) -> list[PlayedLine]:
        return [line for line in self.lines if line.is_open]

    def ask(self) -> None:
        prompt = [self.chance.randrange(9)]
        request = self.client.generate(prompt, max_tokens=1, temperature=1.0)
        self.requests.append(asyncio.create_task(request))

    def rotate(self) -> None:
        self.rotation = {name for name in NAMES if self.chance.random() < 0.6}
        lost = {name for name in NAMES if name not in self.rotation and self.chance.random() < 0.4}
        self.client.rotate(sorted(self.rotation), lost=lost)

    def reply(self) -> None:
        if waiting := [reply for line in self.open for reply in line.waiting]:
            self.chance.choice(waiting).set_result(GENERATION)

    def cancel(self) -> None:
        if under_way := [request for request in self.requests if not request.done()]:
            self.chance.choice(under_way).cancel()

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def check(self, before: list[PlayedLine]) -> None:
        """``before`` were open before the last event."""
        names = [line.name for line in self.open]
        assert len(names) == len(set(names)), "one line to each"
        for line in {*before, *self.open}:
            assert line.is_open == (line.name in self.rotation or bool(line.waiting))

    async def play(self) -> None:
        for _ in range(EVENTS):
            before = self.open
            events = (self.ask, self.ask, self.rotate, self.reply, self.cancel)
            self.chance.choice(events)()
            await self.settle()
            self.check(before)
        await self.finish()

    async def finish(self) -> None:
        """Nothing is lost: everybody who was not cancelled gets an answer, once."""
        self.rotation = set(NAMES)
        self.client.rotate(NAMES)
        while any(not request.done() for request in self.requests):
            self.reply()
            await asyncio.sleep(0)
        answered = [request for request in self.requests if not request.cancelled()]
        assert all(request.result() is GENERATION for request in answered)
        assert self.client.statistics().tokens == len(answered)
        await self.client.close()
        assert not self.open


GENERATION = Generation(
    token_ids=np.array([5], dtype=np.int32),
    logprobs=np.array([-0.5], dtype=np.float32),
    versions=np.array([0], dtype=np.int32),
    finish_reason="stop",
)


def test_after_any_history_lines_are_open_to_the_rotation_and_to_who_still_works() -> None:
    for seed in range(HISTORIES):
        asyncio.run(History(seed).play())


def test_a_server_that_is_elsewhere_now_is_asked_there_and_asked_again_what_is_under_way(
    tmp_path: Path,
) -> None:
    under_way = asyncio.Event()

    async def hang_at_the_second(request: Generate) -> Generated:
        if request.token_ids[0] == 2:
            under_way.set()
            await asyncio.Event().wait()
        return answer(request)

    async def at_once(request: Generate) -> Generated:
        return answer(request, version=1)

    async def move() -> None:
        first = PlayedPolicy(Address(bind=str(tmp_path / "first")), hang_at_the_second)
        second = PlayedPolicy(Address(bind=str(tmp_path / "second")), at_once)
        with Wire(ASKER) as wire:
            async with first.served(), second.served():
                following = Following(Config(), wire, who="a0")
                async with following.policy as client:
                    following(rotation(1, first.address))
                    before = await client.generate([1], max_tokens=1, temperature=1.0)
                    request = asyncio.create_task(
                        client.generate([2], max_tokens=1, temperature=1.0)
                    )
                    await asyncio.wait_for(under_way.wait(), 10)
                    following(rotation(2, second.address))
                    moved = await asyncio.wait_for(request, 10)
                    after = await client.generate([1], max_tokens=1, temperature=1.0)
        assert [int(one.versions[0]) for one in (before, moved, after)] == [0, 1, 1]

    asyncio.run(move())


def rotation(number: int, address: Address) -> Rotation:
    return Rotation(number=number, asked=(Asked(server="s0", address=address, version=0),), lost=())
