"""The real host of a policy server around an engine without a model, which fails on demand."""

import asyncio
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import zmq

from actors.inference.host.engine import TORN
from actors.inference.host.serving import HOST_LIMITS, Host
from actors.inference.mapped import map_weights
from actors.inference.staging import StagedFiles
from common.places import LEARNER, Address, ServerPlace
from common.wire.asynchronous import AsyncDoor
from common.wire.generation import version_number
from common.wire.hosting import Generate, Generated, ServerLoad
from common.wire.sockets import Wire, new_key_pair

LEARNERS = new_key_pair()
"""What the learner proves itself with to these servers."""
ACTORS = new_key_pair()


class PlayedEngine:
    """One life of the engine of ``server``."""

    def __init__(self, server: "WeightServer") -> None:
        self._server = server
        self.label = "default"
        self._over = asyncio.Event()
        self._how = ""

    async def generate(self, request: Generate) -> Generated:
        await self._server.play("generate")
        play = self._server.generate
        assert play is not None, "nobody was to ask"
        ids, logprobs = play(request.token_ids.tolist(), request.max_tokens)
        return Generated(
            number=request.number,
            token_ids=np.array(ids, dtype=np.int32),
            logprobs=np.array(logprobs, dtype=np.float32),
            versions=np.full(len(ids), version_number(self._server.version), dtype=np.int32),
            finish_reason="length",
        )

    async def swap(self, staged: StagedFiles) -> float:
        try:
            await self._server.play("swap")
        except RuntimeError:
            self.label = TORN
            raise
        manifest = map_weights(Path(staged.own.path)).manifest
        self._server.swaps.append(manifest.version)
        self.label = str(manifest.version)
        return 0.01

    async def version(self) -> str:
        await self._server.play("state")
        return self._server.version

    def load(self) -> ServerLoad:
        return self._server.load

    async def ended(self) -> str:
        await self._over.wait()
        return self._how

    def close(self) -> None:
        pass

    def end(self, how: str) -> None:
        self._how = how
        self._over.set()


class WeightServer:
    """``version`` is what it says it samples with; ``swaps`` lists the versions it loaded."""

    def __init__(self, name: str, folder: Path) -> None:
        self.keys = new_key_pair()
        """Of the server."""
        self.place = ServerPlace(
            name=name, address=Address(bind=str(folder / name), key=self.keys.public)
        )
        self.name = name
        self.swaps: list[int] = []
        self.asked: Counter[str] = Counter()
        """How often it was asked for its state, to swap, to generate."""
        self.failing: dict[str, str] = {}
        """What it fails to do, and why."""
        self.hanging: set[str] = set()
        """What it does not do until ``let_go``."""
        self.hung = threading.Event()
        self.let_go = threading.Event()
        self.generate: Callable[[list[int], int], tuple[list[int], list[float]]] | None = None
        """(prompt, most tokens) to ids and log-probabilities, sampled as ``version``."""
        self.load = ServerLoad()
        self._says = ""
        self._engine: PlayedEngine | None = None
        self._host: asyncio.Task[None] | None = None
        self._door: AsyncDoor | None = None
        self._listens = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.start()

    @property
    def version(self) -> str:
        return self._says or (self._engine.label if self._engine else "none")

    @version.setter
    def version(self, label: str) -> None:
        self._says = label

    async def play(self, what: str) -> None:
        """Hang or fail, if that is what it does."""
        self.asked[what] += 1
        if what in self.hanging:
            self.hung.set()
            await asyncio.to_thread(self.let_go.wait, 30)
        if what in self.failing:
            raise RuntimeError(self.failing[what])

    def start(self) -> None:
        """A process of it."""
        self._listens.clear()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(10)
        assert self._listens.wait(10)

    async def _begin(self) -> None:
        self._host = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        members = {LEARNERS.public: LEARNER, ACTORS.public: "a0"}
        with Wire(self.keys) as wire:
            self._door = wire.listen_async("host", self.place.address, members, HOST_LIMITS)
            host = Host(self._door, self._life, name=self.name, keys=self.keys)
            await host.run(self._listens.set)

    async def _life(self) -> PlayedEngine:
        self._engine = PlayedEngine(self)
        return self._engine

    def restart(self) -> None:
        """As a new process: nothing is held, nobody is known."""
        self.kill()
        self._says = ""
        self.start()

    def kill(self) -> None:
        """Its process ends, with all that is under way."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result(10)
        Path(self.place.address.bind).unlink(missing_ok=True)

    async def _kill(self) -> None:
        assert self._host is not None
        assert self._door is not None
        self._door.close()
        self._host.cancel()
        with suppress(asyncio.CancelledError, zmq.ZMQError):  # it may just want the next message
            await self._host

    def end_engine(self, how: str) -> None:
        """Its engine ends; the host lives on."""
        assert self._engine is not None
        self._loop.call_soon_threadsafe(self._engine.end, how)

    def close(self) -> None:
        self.let_go.set()
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@contextmanager
def weight_servers(count: int) -> Iterator[list[WeightServer]]:
    with tempfile.TemporaryDirectory() as folder:
        servers = [WeightServer(f"s{number}", Path(folder)) for number in range(count)]
        try:
            yield servers
        finally:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(WeightServer.close, servers))


@contextmanager
def learners_wire() -> Iterator[Wire]:
    """The sockets of the learner that these servers know."""
    with Wire(LEARNERS) as wire:
        yield wire
