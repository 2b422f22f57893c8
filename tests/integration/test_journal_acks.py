"""Nobody is told anything that a crash could take back, over real ZeroMQ."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.wire.codec import SCHEMA_VERSION, Record, decode
from common.wire.records import TaskLease
from common.wire.session import Ack, Heartbeat, HelloWanted, Welcome
from learner.coordination.changes import Accepted, Taken, from_record
from learner.journal.commits import CommitQueue
from learner.journal.format import Record as Entry
from learner.journal.segments import recover
from learner.journal.writer import JournalWriter
from tests.coordination import Peer, a_peer, an_intake, answer, hello
from tests.waiting import wait_for
from tests.wires import ACTOR_LIMITS, a_place


class SlowDisk:
    """A journal whose disk takes what came so far when ``turn`` says so."""

    def __init__(self) -> None:
        self.on_durable: Callable[[], None] = lambda: None
        self.is_full = False
        self.queue = CommitQueue(0)
        self.written: list[Entry] = []

    @property
    def appended(self) -> int:
        return self.queue.appended

    @property
    def durable(self) -> int:
        return self.queue.durable

    def append(self, record: Entry) -> int:
        return self.queue.append(record)

    def begin_segment(self, checkpoint: int) -> int:
        return self.queue.begin_segment(checkpoint)

    def forget_before(self, checkpoint: int) -> None:
        pass

    def turn(self) -> None:
        commit = self.queue.take()
        self.written += commit.records
        self.queue.committed(commit)
        self.on_durable()


def says(peer: Peer, record: Record) -> list[Record]:
    """Say it, and what is heard then: what was on its way when a door closed is lost."""
    peer.say(record)
    frames = peer.line.receive(timeout_ms=200)
    return [] if frames is None else [decode(frames)]


def hears(peer: Peer, count: int) -> list[Record]:
    """So many messages, without being asked for a hello again."""
    heard: list[Record] = []
    while len(heard) < count:
        heard += [record for record in [peer.hear()] if not isinstance(record, HelloWanted)]
    return heard


@contextmanager
def two_leases(disk: SlowDisk, peer: Peer) -> Iterator[list[TaskLease]]:
    """What a session gets once the disk has it."""
    peer.say(hello())
    assert isinstance(peer.hear(), Welcome)
    wait_for(lambda: disk.appended == 2)
    assert peer.hears_nothing(), "a lease is out that a crash would forget"
    disk.turn()
    leases = [peer.hear(), peer.hear()]
    yield [lease for lease in leases if isinstance(lease, TaskLease)]


def test_an_ack_waits_until_the_trajectory_is_on_the_disk(tmp_path: Path) -> None:
    disk = SlowDisk()
    with (
        a_place() as place,
        an_intake(place, tmp_path, journal=disk),
        a_peer(place) as peer,
        two_leases(disk, peer) as (first, _),
    ):
        peer.say(answer(first), answer(first))
        wait_for(lambda: disk.appended == 3)
        assert peer.hears_nothing(), "neither for the first nor for the second"

        disk.turn()

        assert peer.hear() == peer.hear() == Ack(trajectory_id=first.lease_id)
        (accepted,) = [c for c in map(from_record, disk.written) if isinstance(c, Accepted)]
        assert accepted.trajectory.trajectory_id == first.lease_id


def test_a_welcome_waits_for_what_it_does_not_name(tmp_path: Path) -> None:
    """An actor forgets what a welcome does not name."""
    disk = SlowDisk()
    with (
        a_place() as place,
        an_intake(place, tmp_path, journal=disk),
        a_peer(place) as peer,
        two_leases(disk, peer) as (first, second),
    ):
        peer.say(answer(first), hello())
        wait_for(lambda: disk.appended == 3)
        assert peer.hears_nothing()

        disk.turn()

        assert peer.hear() == Ack(trajectory_id=first.lease_id)
        welcome = peer.hear()
        assert isinstance(welcome, Welcome)
        assert welcome.leases == (second.lease_id,)


def test_a_batch_waits_until_its_record_is_on_the_disk(tmp_path: Path) -> None:
    disk = SlowDisk()
    with (
        a_place() as place,
        an_intake(place, tmp_path, journal=disk) as intake,
        a_peer(place) as peer,
        two_leases(disk, peer) as leases,
    ):
        batches: list[list[str]] = []

        def take() -> None:
            batch = intake.take_batch(learner_version=0, timeout_s=20)
            batches.append([t.trajectory_id for t in batch])

        taking = threading.Thread(target=take)
        taking.start()
        peer.say(*(answer(lease) for lease in leases))
        wait_for(lambda: disk.appended == 2 + 2 + 1 + 1)  # two answers, the group, the batch
        assert not batches

        disk.turn()

        taking.join(timeout=20)
        assert batches == [[lease.lease_id for lease in leases]]
        taken = from_record(disk.written[-1])
        assert isinstance(taken, Taken)
        assert list(taken.trajectories) == batches[0]
        assert intake.blocked_s > 0


def test_nothing_is_taken_in_while_the_disk_is_far_behind(tmp_path: Path) -> None:
    disk = SlowDisk()
    disk.is_full = True
    with a_place() as place, an_intake(place, tmp_path, journal=disk), a_peer(place) as peer:
        peer.say(hello())
        assert peer.hears_nothing()

        disk.is_full = False
        disk.on_durable()

        assert isinstance(peer.hear(), Welcome)


@pytest.mark.parametrize("journal_has_it", [True, False])
def test_an_actor_that_outlives_the_coordinator_gets_its_acks(
    tmp_path: Path, journal_has_it: bool
) -> None:
    """It sends again what was not acknowledged: recognised if the journal has it, else accepted."""
    journal = tmp_path / "journal"
    with a_place() as place, a_peer(place) as peer:
        with JournalWriter(journal) as writer, an_intake(place, tmp_path, journal=writer):
            first, second = peer.joined()
            if journal_has_it:
                peer.say(answer(first))
                wait_for(lambda: writer.durable == writer.appended == 3)
        members = {pair.public: name for name, pair in place.keys.items()}
        place.door = place.wire.listen("again", place.door.address, members, ACTOR_LIMITS)
        places = recover(journal, since=0).places
        with an_intake(place, tmp_path, places=places) as intake:
            beat = Heartbeat(seen=2, leases=(first.lease_id, second.lease_id))
            wait_for(lambda: HelloWanted() in says(peer, beat))
            peer.say(hello(leases=beat.leases), answer(first))

            welcome, ack, *rest = hears(peer, 2)

            held = beat.leases[1:] if journal_has_it else beat.leases
            assert welcome == Welcome(schema_version=SCHEMA_VERSION, leases=held)
            assert ack == Ack(trajectory_id=first.lease_id)
            assert rest == []
            counters = intake.counters()
            assert (counters.started, counters.finished) == (2, 1)
            assert counters.dropped == {}
            assert counters.duplicates == int(journal_has_it)
