"""Policy servers whose caches hold only so much, under virtual time, and the real coordinator.

A server samples for all of its sequences at once, in rounds of a block of tokens each. A round
takes a fixed time, some for each sequence, and some for each block that is computed again because
its sequence had lost its place, as vLLM gives places and takes them away; all of it as much longer
or shorter as something else on the machine has it. Nothing waits: the clock goes from one round to
the next.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from math import exp

from common.places import Address
from common.wire.hosting import ServerLoad
from common.wire.records import Task, TaskLease
from common.wire.session import Hello
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.roster import Roster
from tests.makers import make_trajectory

GROUPS, SIZE = 2, 4
REPORT_S = 5.0
BLOCK = 16
LASTING = 0.98
"""Part of the noise of a round that is in the next one, too."""
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(50)]


@dataclass
class Sequence:
    """An episode: blocks of tokens, so far and at its end."""

    lease: TaskLease
    blocks: int
    end: int


@dataclass(kw_only=True)
class SimulatedServer:
    """Room for ``cache`` blocks and ``slots`` sequences; times are seconds."""

    cache: int
    slots: int = 1 << 30
    round_s: float = 0.05
    sequence_s: float = 0.002
    prompt_block_s: float = 0.002
    noise: float = 0.0
    """Of what a round takes, as a part of it: its standard deviation."""
    now: float = 0.0
    preemptions: int = 0
    blocks: int = 0
    busy_s: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    slowness: float = 0.0
    running: list[Sequence] = field(default_factory=list)
    waiting: deque[Sequence] = field(default_factory=deque)

    @property
    def load(self) -> ServerLoad:
        """What it would report."""
        return ServerLoad(
            running=len(self.running), waiting=len(self.waiting), preemptions=self.preemptions,
            sampled=self.blocks * BLOCK, busy_s=self.busy_s,
        )  # fmt: skip

    @property
    def under_way(self) -> int:
        """All that it was asked for."""
        return len(self.running) + len(self.waiting)

    def sample(self) -> list[Sequence]:
        """One round; what has come to its end."""
        computed = self._give_places()
        self._take_places()
        for sequence in self.running:
            sequence.blocks += 1
        ended = [s for s in self.running if s.blocks >= s.end]
        self._pass_time(computed)
        self.running = [s for s in self.running if s.blocks < s.end]
        return ended

    def _pass_time(self, computed: int) -> None:
        seconds = self.round_s + self.sequence_s * len(self.running)
        seconds += self.prompt_block_s * computed
        if self.noise:
            fresh = self.chance.gauss(0, self.noise * (1 - LASTING**2) ** 0.5)
            self.slowness = LASTING * self.slowness + fresh
        seconds *= exp(self.slowness)
        self.now += seconds
        self.busy_s += seconds if self.running else 0.0
        self.blocks += len(self.running)

    def _give_places(self) -> int:
        """Begin what there is room for; the blocks to compute first."""
        used, computed = sum(s.blocks for s in self.running), 0
        while self.waiting and len(self.running) < self.slots:
            first = self.waiting[0]
            if used + first.blocks >= self.cache:
                break
            self.running.append(self.waiting.popleft())
            used, computed = used + first.blocks, computed + first.blocks
        return computed

    def _take_places(self) -> None:
        """The youngest have to make room for the next block of the others."""
        used = sum(s.blocks for s in self.running)
        while len(self.running) > 1 and used + len(self.running) > self.cache:
            lost = self.running.pop()
            used -= lost.blocks
            self.preemptions += 1
            self.waiting.appendleft(lost)


class SimulatedService:
    """Servers, one actor that asks for ``asked`` episodes in flight, and a learner at once done.

    ``adapts``: the coordinator is told what the servers say.
    """

    def __init__(
        self,
        servers: list[SimulatedServer],
        *,
        asked: int,
        adapts: bool,
        blocks: tuple[int, int] = (16, 60),
    ) -> None:
        self.servers = servers
        self.limits: list[int] = []
        """At each report."""
        self.finished: list[float] = []
        """When episodes ended."""
        self._blocks, self._adapts, self._asked = blocks, adapts, asked
        self._chance = random.Random(0)
        self._roster = Roster(suspect_s=1e9)
        self._told_at = {}
        for number, server in enumerate(servers):
            self._roster.join(f"s{number}", Address(bind=f"/s{number}"))
            self._told_at[f"s{number}"] = REPORT_S * (number + 1) / len(servers)
            assert server.under_way == 0
        self.state = Coordinator(
            TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE,
            max_staleness=1 << 20, total_batches=1 << 30, max_buffered_bytes=1 << 40,
            silence_s=1e9, lease_timeout_s=1e9,
        )  # fmt: skip
        hello = Hello(actor_id="a", session="s", schema_version=0, credit=asked, kernel_level="")
        self.state.join(hello)

    def play(self, seconds: float) -> "SimulatedService":
        """Until then, by the clock of every server."""
        while (server := min(self.servers, key=lambda one: one.now)).now < seconds:
            self._hand_out(server.now)
            ended = server.sample()
            self._report(server)
            for sequence in ended:
                self._finish(sequence, server.now)
        return self

    def rate(self, *, since: float) -> float:
        """Episodes per second from then on."""
        until = min(server.now for server in self.servers)
        return sum(since <= at < until for at in self.finished) / (until - since)

    @property
    def preemptions(self) -> int:
        """On all servers."""
        return sum(server.preemptions for server in self.servers)

    def _hand_out(self, now: float) -> None:
        for _, lease in self.state.hand_out(now=now):
            least = min(self.servers, key=lambda one: one.under_way)
            least.waiting.append(Sequence(lease, 4, self._chance.randint(*self._blocks)))

    def _report(self, server: SimulatedServer) -> None:
        name = f"s{self.servers.index(server)}"
        if server.now < self._told_at[name]:
            return
        self._told_at[name] += REPORT_S
        self._roster.loaded(name, self._roster.server(name).life, server.load)
        if self._adapts:
            self.state.hear_loads(self._roster.reporting)
        self.limits.append(self.state.credit.limit(self._asked))

    def _finish(self, sequence: Sequence, now: float) -> None:
        self.finished.append(now)
        lease = sequence.lease
        made = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            version=0, task_id=lease.task.task_id, actor_id="a",
        )  # fmt: skip
        self.state.receive("a#s", made, learner_version=0, now=now)
        self.state.take_batch(learner_version=0, now=now)
