"""The path of a run: links in processes of actors, door, intake, coordinator, journal, ack.

The learner's side is in this process, so that its processor time is that of the process. What was
delivered is counted on the disk afterwards.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transport.actors import Asked, Told
from benchmarks.transport.processes import ended, started
from benchmarks.transport.work import TASK_ID, VOCABULARY, Measured
from common.places import Address
from common.wire.keys import KeyPair, write_key_pair
from common.wire.records import Task
from common.wire.sockets import Door, Wire, new_key_pair
from learner.coordination.changes import Accepted, from_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.store_process import StoreProcess
from learner.coordination.trajectory_checks import ModelLimits
from learner.journal.segments import begin_journal, read_place
from learner.journal.writer import JournalWriter

LOOPBACK = Address(bind="127.0.0.1", host="127.0.0.1")
GROUP_SIZE = 8
_ENDLESS = 1 << 20
"""Versions that an action may lag behind: nothing is stale here."""
_WAIT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is delivered: ``batches`` of ``groups`` groups, after one that is not counted.

    Attributes:
        processes, sessions, slots: so many processes with so many sessions each, which hold so
            many leases each.
        pause_s: what an episode takes, seconds.
    """

    num_bytes: int
    groups: int
    batches: int
    processes: int = 1
    sessions: int = 1
    slots: int = 64
    pause_s: float = 0.0

    @property
    def batch(self) -> int:
        """Trajectories in a batch."""
        return self.groups * GROUP_SIZE

    @property
    def in_flight(self) -> int:
        """Leases out at once."""
        return self.processes * self.sessions * self.slots


def deliver(load: Load, folder: Path) -> Measured:
    """One round in a fresh folder."""
    members = {f"a{number}": new_key_pair() for number in range(load.processes)}
    coordinator = _coordinator(load)
    with ExitStack() as stack:
        wire = stack.enter_context(Wire(new_key_pair()))
        known = {pair.public: name for name, pair in members.items()}
        door = wire.listen("coordinator", LOOPBACK, known, ACTOR_LIMITS)
        journal = stack.enter_context(JournalWriter(folder / "journal", keep=True))
        store = StoreProcess(folder / "trajectories", limit_bytes=256 << 20)
        intake = stack.enter_context(Intake(coordinator, store, door, journal=journal))
        with _actors(load, members, door, folder) as actors:
            per_s, cpu_ms, taken = _take(intake, load)
            intake.drain("all is delivered", timeout_s=_WAIT_S)
            told = [_told(folder, name, actor) for name, actor in actors.items()]
    return counted(folder, told, taken, per_s=per_s, cpu_ms=cpu_ms)


def _coordinator(load: Load) -> Coordinator:
    ahead = 2 + load.in_flight / load.batch
    return Coordinator(
        TaskOrder([Task(task_id=TASK_ID, question="What is asked?", answers=("a",))], seed=0),
        groups_per_batch=load.groups,
        group_size=GROUP_SIZE,
        max_staleness=_ENDLESS,
        depth=Depth(groups_per_batch=load.groups, max_staleness=_ENDLESS, batches=ahead),
        total_batches=_ENDLESS,
        max_buffered_bytes=8 << 30,
        limits=ModelLimits(vocabulary=VOCABULARY, max_context=1 << 20),
    )


def _take(intake: Intake, load: Load) -> tuple[float, float, list[str]]:
    """Take batches as a learner does that trains in no time: rate, CPU ms each, and the ids."""
    taken: list[str] = []
    for step in range(load.batches + 1):
        batch = intake.take_batch(learner_version=step, timeout_s=_WAIT_S)
        intake.acknowledge(step + 1)
        taken += [trajectory.trajectory_id for trajectory in batch or ()]
        if step == 0:
            began, cpu_s = time.perf_counter(), time.process_time()
    count = load.batches * load.batch
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    return count / seconds, 1000 * cpu_s / count, taken


@contextmanager
def _actors(
    load: Load, members: dict[str, KeyPair], door: Door, folder: Path
) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    with ExitStack() as stack:
        actors = {}
        for name, pair in members.items():
            keys = folder / f"{name}.keys"
            write_key_pair(keys, pair)
            asked = folder / f"{name}.asked.json"
            Asked(
                address=door.address, member=name, keys=str(keys),
                result=str(_result(folder, name)), sessions=load.sessions, slots=load.slots,
                num_bytes=load.num_bytes, pause_s=load.pause_s,
            ).write(asked)  # fmt: skip
            actors[name] = stack.enter_context(started("actors", str(asked)))
        yield actors


def _result(folder: Path, name: str) -> Path:
    return folder / f"{name}.told.json"


def _told(folder: Path, name: str, actor: "subprocess.Popen[bytes]") -> Told:
    ended(actor, within_s=_WAIT_S)
    return Told.read(_result(folder, name))


def counted(
    folder: Path, told: list[Told], taken: list[str], *, per_s: float, cpu_ms: float
) -> Measured:
    """Compare what actors were told with what is on the disk, and with what was trained on."""
    found = begin_journal(folder / "journal", since=0, resume=True, tell=print)
    changes = (from_record(read_place(place)) for place in found.places)
    kept = Counter(c.trajectory.trajectory_id for c in changes if isinstance(c, Accepted))
    acknowledged = {lease_id: ms for one in told for lease_id, ms in one.delivery_ms.items()}
    return Measured(
        per_s=per_s,
        cpu_ms=cpu_ms,
        delivery_ms=tuple(acknowledged.values()),
        lost=len((acknowledged.keys() | set(taken)) - kept.keys()),
        duplicated=_repeats(kept) + _repeats(Counter(taken)),
    )


def _repeats(counts: Counter[str]) -> int:
    return sum(counts.values()) - len(counts)
