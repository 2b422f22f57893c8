"""No kernel of a pool is lost or closed twice, whoever is cancelled, fails or closes when."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.pool import KernelPool


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop that runs one turn at a time, by a clock of its own."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def turn(self):
        self.call_soon(self.stop)
        self.run_forever()


class FakeKernel:
    level = "fake"

    def __init__(self, number):
        self.kernel_id = str(number)
        self.alive = True
        self.closings = 0
        self.closed = asyncio.Event()

    async def close(self):
        self.alive = False
        self.closings += 1
        await asyncio.sleep(0)
        self.closed.set()


class FakeLauncher:
    """Launches when it is told to."""

    level = "fake"

    def __init__(self):
        self.made = []
        self.launches = []
        self.closings = 0

    async def start(self):
        pass

    async def launch(self):
        wanted = asyncio.get_running_loop().create_future()
        self.launches.append(wanted)
        try:
            await wanted
        finally:
            self.launches.remove(wanted)
        self.made.append(FakeKernel(len(self.made)))
        return self.made[-1]

    async def close(self):
        self.closings += 1


class Taker:
    """One who takes a kernel and holds it until told to leave."""

    def __init__(self, loop, pool):
        self.kernel = None
        self.leave = loop.create_future()
        self.task = loop.create_task(self._run(pool))

    async def _run(self, pool):
        async with pool.slot() as self.kernel:
            try:
                await self.leave
            finally:
                self.kernel = None


INDEX = st.integers(0, 31)
TURNS = st.integers(0, 3)
"""Turns of the loop after a rule: what is awaited arrives one or two turns later."""
FAILURES = [KernelDiedError("no luck", DeathCause.FAILED_TO_START), RuntimeError("a fault of ours")]


class PoolMachine(RuleBasedStateMachine):
    @initialize(idle=st.integers(0, 3), at_once=st.integers(1, 3))
    def begin(self, idle, at_once):
        self.loop = SteppedLoop()
        self.launcher = FakeLauncher()
        self.takers, self.closing = [], []
        self.pool = self.loop.run_until_complete(self.make(idle, at_once))

    async def make(self, idle, at_once):
        pool = KernelPool(self.launcher, idle=idle, launches_at_once=at_once)
        await pool.start()
        return pool

    @rule(turns=TURNS)
    def somebody_comes(self, turns):
        self.takers.append(Taker(self.loop, self.pool))
        self.pass_turns(turns)

    @precondition(lambda self: self.takers)
    @rule(which=INDEX, turns=TURNS)
    def somebody_is_cancelled(self, which, turns):
        self.takers[which % len(self.takers)].task.cancel()
        self.pass_turns(turns)

    @precondition(lambda self: self.takers)
    @rule(which=INDEX, turns=TURNS)
    def somebody_leaves(self, which, turns):
        leave = self.takers[which % len(self.takers)].leave
        if not leave.done():
            leave.set_result(None)
        self.pass_turns(turns)

    @precondition(lambda self: self.launcher.launches)
    @rule(which=INDEX, failure=st.sampled_from([None, None, None, *FAILURES]), turns=TURNS)
    def a_launch_ends(self, which, failure, turns):
        launch = self.launcher.launches[which % len(self.launcher.launches)]
        if not launch.done() and failure is None:
            launch.set_result(None)
        elif not launch.done():
            launch.set_exception(failure)
        self.pass_turns(turns)

    @precondition(lambda self: self.launcher.made)
    @rule(which=INDEX)
    def a_kernel_dies(self, which):
        self.launcher.made[which % len(self.launcher.made)].alive = False

    @rule()
    def time_passes(self):
        self.loop.now += 1.0
        self.loop.turn()

    @rule(turns=TURNS)
    def the_pool_is_closed(self, turns):
        self.closing.append(self.loop.create_task(self.pool.close()))
        self.pass_turns(turns)

    @precondition(lambda self: self.closing)
    @rule(which=INDEX)
    def closing_is_cancelled(self, which):
        self.closing[which % len(self.closing)].cancel()

    def pass_turns(self, turns):
        for _ in range(turns):
            self.loop.turn()

    @invariant()
    def nothing_is_closed_twice_or_held_twice(self):
        held = [taker.kernel for taker in self.takers if taker.kernel is not None]
        assert all(kernel.closings <= 1 for kernel in self.launcher.made)
        assert len(set(map(id, held))) == len(held)

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        self.settle()
        self.everybody_was_served()
        self.whatever_nobody_holds_can_be_taken()
        closing = self.loop.create_task(self.pool.close())
        self.settle()
        closing.result()
        assert [kernel.closings for kernel in self.launcher.made] == [1] * len(self.launcher.made)
        assert self.launcher.closings >= 1
        for taker in self.takers:
            taker.task.cancel()
        self.settle()
        assert all(kernel.closings == 1 for kernel in self.launcher.made)
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    def everybody_was_served(self):
        assert not [taker for taker in self.takers if not taker.task.done() and not taker.kernel]

    def whatever_nobody_holds_can_be_taken(self):
        """No kernel got lost on its way to somebody who was cancelled."""
        held = [taker.kernel for taker in self.takers]
        free = [made for made in self.launcher.made if made.alive and made not in held]
        new = [Taker(self.loop, self.pool) for _ in free]
        self.loop.turn()
        self.takers += new
        assert {taker.kernel for taker in new} == set(free)

    def settle(self):
        """Let all happen that can happen without anybody's doing."""
        for _ in range(200):
            for launch in self.launcher.launches:
                if not launch.done():
                    launch.set_result(None)
            self.loop.now += 1.0
            self.loop.turn()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def loop():
    loop = SteppedLoop()
    yield loop
    loop.close()


async def made_pool(launcher, idle):
    pool = KernelPool(launcher, idle=idle)
    await pool.start()
    return pool


def turns(loop, count=5):
    for _ in range(count):
        loop.turn()


def test_a_kernel_that_arrives_as_its_taker_is_cancelled_goes_to_the_next(loop):
    launcher = FakeLauncher()
    pool = loop.run_until_complete(made_pool(launcher, idle=0))
    first, second = Taker(loop, pool), Taker(loop, pool)
    turns(loop)
    launcher.launches[0].set_result(None)
    while not launcher.made:
        loop.turn()

    first.task.cancel()
    turns(loop)

    assert second.kernel is launcher.made[0]
    second.leave.set_result(None)
    loop.run_until_complete(second.task)
    launcher.launches[0].set_result(None)
    loop.run_until_complete(pool.close())
    assert [kernel.closings for kernel in launcher.made] == [1, 1]


def test_a_pool_closes_everything_although_its_closing_was_cancelled(loop):
    launcher = FakeLauncher()
    pool = loop.run_until_complete(made_pool(launcher, idle=2))
    turns(loop)
    for launch in launcher.launches:
        launch.set_result(None)
    turns(loop)
    closing = loop.create_task(pool.close())
    loop.turn()

    closing.cancel()
    turns(loop)
    loop.run_until_complete(pool.close())

    assert closing.cancelled()
    assert [kernel.closings for kernel in launcher.made] == [1, 1]
    assert all(kernel.closed.is_set() for kernel in launcher.made)
    assert launcher.closings == 1
