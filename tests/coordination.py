"""A real coordinator behind a real door, and members who may say anything to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common.telemetry.process_totals import add_actor_totals
from common.wire.codec import SCHEMA_VERSION, Record, decode, encode
from common.wire.records import Task, TaskLease, Trajectory
from common.wire.session import Hello, Welcome
from common.wire.sockets import Line
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.membership import Membership
from learner.coordination.replay import Replay
from learner.coordination.store import TrajectoryStore
from learner.journal.interface import Journal
from learner.journal.segments import Place as JournalPlace
from tests.makers import make_trajectory
from tests.wires import Place

SECRET = "the gold answer"
TASK = Task(task_id="t", question="?", answers=(SECRET,))


@contextmanager
def an_intake(
    place: Place, folder: Path, task: Task = TASK, *, journal: Journal | None = None,
    places: Sequence[JournalPlace] | None = None, membership: Membership | None = None,
    max_staleness: int = 0,
) -> Iterator[Intake]:  # fmt: skip
    """Groups of two of the same task, one group a batch; it goes on from a journal's ``places``."""
    coordinator = Coordinator(
        TaskOrder([task], seed=0),
        groups_per_batch=1,
        group_size=2,
        max_staleness=max_staleness,
        total_batches=50,
        max_buffered_bytes=1 << 30,
    )
    store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 20)
    replay = None if places is None else Replay(coordinator, places)
    with Intake(
        coordinator, store, place.door, journal=journal, replay=replay, membership=membership,
        add_totals=partial(add_actor_totals, folder=folder / "actors"),
    ) as intake:  # fmt: skip
        if replay is not None:
            replay.rest()
            intake.go_live()
        yield intake


class Peer:
    """Speaks records over a line."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def say(self, *records: Record) -> None:
        for record in records:
            self.line.send(encode(record))

    def hear(self) -> Record:
        frames = self.line.receive(timeout_ms=10_000)
        assert frames is not None, "no answer"
        return decode(frames)

    def hears_nothing(self) -> bool:
        return self.line.receive(timeout_ms=200) is None

    def joined(self, name: str = "a0", session: str = "s") -> list[TaskLease]:
        """Its leases, after a hello."""
        self.say(hello(name, session))
        assert isinstance(self.hear(), Welcome)
        leases = [self.hear(), self.hear()]
        assert all(isinstance(lease, TaskLease) for lease in leases)
        return [lease for lease in leases if isinstance(lease, TaskLease)]


@contextmanager
def a_peer(place: Place, member: str = "a0", identity: bytes = b"a0#s") -> Iterator[Peer]:
    with place.line(member, identity=identity) as line:
        yield Peer(line)


def hello(name: str = "a0", session: str = "s", *, leases: Sequence[str] = ()) -> Hello:
    return Hello(
        actor_id=name, session=session, schema_version=SCHEMA_VERSION, credit=2, kernel_level="",
        leases=tuple(leases),
    )  # fmt: skip


def answer(lease: TaskLease) -> Trajectory:
    return make_trajectory(
        lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index, task_id="t"
    )
