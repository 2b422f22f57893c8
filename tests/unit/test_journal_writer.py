"""The journal's writer: in order, safe before anybody is told, and what a bad disk does to it."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from learner.coordination.outbox import Letter, Outbox
from learner.journal.commits import Commit, CommitQueue, NewSegment
from learner.journal.format import Record
from learner.journal.segments import read_place, recover, segment_files
from learner.journal.writer import JournalWriter
from tests.waiting import wait_for


def record(number: int, size: int = 0) -> Record:
    return Record(1, (str(number).encode(), bytes(size)))


class Committing(RuleBasedStateMachine):
    """A coordinator that appends and says things, and a disk in virtual time.

    The disk takes a batch at some moment, or refuses it, or the machine dies with the batch in
    its hands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.outbox = CommitQueue(0), Outbox()
        self.disk: dict[int, Record] = {}
        """What a crash leaves, by serial."""
        self.in_hand: Commit | None = None
        self.said = 0
        self.heard: list[int] = []
        self.excused: set[int] = set()
        """Serials that nobody waits for, since the disk does not take them."""

    @rule(count=st.integers(1, 3), size=st.integers(0, 50))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            serial = self.queue.appended
            assert self.queue.append(record(serial, size)) == serial + 1
            if self.queue.is_suspended:
                self.excused.add(serial)

    @rule()
    def say(self) -> None:
        self.outbox.put(Letter(self.queue.appended, str(self.said).encode(), ()))
        self.said += 1

    @rule()
    def take(self) -> None:
        if self.in_hand is None:
            self.in_hand = self.queue.take()

    @rule()
    def commit(self) -> None:
        if self.in_hand is None:
            return
        serial = self.in_hand.end - len(self.in_hand.records)
        for entry in self.in_hand.entries:
            if isinstance(entry, NewSegment):
                assert entry.first_serial == serial
            elif isinstance(entry, Record):
                assert bytes(entry.frames[0]) == str(serial).encode(), "in order"
                self.disk[serial] = entry
                serial += 1
        self.queue.committed(self.in_hand)
        self.in_hand = None

    @rule()
    def refuse(self) -> None:
        if self.in_hand is None:
            return
        self.queue.failed()
        self.excused |= set(range(self.queue.durable)) - self.disk.keys()
        self.in_hand = None

    @rule(step=st.integers(0, 9))
    def make_checkpoint(self, step: int) -> None:
        assert self.queue.begin_segment(step) == self.queue.appended
        assert not self.queue.is_suspended

    @rule()
    def send(self) -> None:
        self.heard += [int(letter.identity) for letter in self.outbox.ready(self.queue.durable)]

    @invariant()
    def nothing_is_safe_that_the_disk_has_not(self) -> None:
        missing = set(range(self.queue.durable)) - self.disk.keys() - self.excused
        assert not missing
        assert self.queue.durable <= self.queue.appended

    @invariant()
    def messages_are_heard_in_order(self) -> None:
        assert self.heard == list(range(len(self.heard)))

    @invariant()
    def bytes_are_counted(self) -> None:
        in_hand = 0 if self.in_hand is None else self.in_hand.num_bytes
        assert self.queue.num_bytes >= in_hand
        if self.in_hand is None and not len(self.queue):
            assert self.queue.num_bytes == 0


TestCommitting = Committing.TestCase
TestCommitting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ---- the thread and the disk ---------------------------------------------------------------------


@contextmanager
def a_writer(folder: Path, **options: object) -> Iterator[JournalWriter]:
    with JournalWriter(folder, **options) as writer:  # type: ignore[arg-type]
        yield writer


def safe(writer: JournalWriter) -> None:
    wait_for(lambda: writer.durable == writer.appended)


def texts(folder: Path, *, since: int = 0) -> list[str]:
    found = recover(folder, since=since)
    assert found.notes == ()
    return [bytes(read_place(place).frames[0]).decode() for place in found.places]


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_safe_is_on_the_disk_while_the_writer_lives(tmp_path: Path, sync: bool) -> None:
    with a_writer(tmp_path, sync=sync) as writer:
        for number in range(5):
            writer.append(record(number))
        safe(writer)

        assert texts(tmp_path) == ["0", "1", "2", "3", "4"]
    assert writer.costs.records == 5
    assert writer.costs.num_bytes == sum(record(n).num_bytes for n in range(5))


def test_whoever_waits_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    with a_writer(tmp_path) as writer:
        writer.on_durable = lambda: told.append(writer.durable)
        writer.append(record(0))
        wait_for(lambda: told == [1])


def test_segments_go_when_no_kept_checkpoint_needs_them(tmp_path: Path) -> None:
    with a_writer(tmp_path) as writer:
        for step in range(3):
            writer.append(record(step))
            assert writer.begin_segment(step) == step + 1
        writer.append(record(3))
        safe(writer)
        assert len(segment_files(tmp_path)) == 4

        writer.forget_before(1)
        wait_for(lambda: len(segment_files(tmp_path)) == 2)
    assert texts(tmp_path, since=2) == ["2", "3"]


def test_segments_stay_where_they_are_to_be_kept(tmp_path: Path) -> None:
    with a_writer(tmp_path, keep=True) as writer:
        for step in range(3):
            writer.append(record(step))
            writer.begin_segment(step)
        writer.forget_before(2)

    assert texts(tmp_path) == ["0", "1", "2"]


def test_a_large_segment_ends(tmp_path: Path) -> None:
    with a_writer(tmp_path, segment_bytes=100) as writer:
        for number in range(4):
            writer.append(record(number, 120))
            safe(writer)

    assert len(segment_files(tmp_path)) == 4
    assert texts(tmp_path) == ["0", "1", "2", "3"]


def test_a_writer_goes_on_in_a_segment_of_its_own(tmp_path: Path) -> None:
    with a_writer(tmp_path) as writer:
        writer.append(record(0))
    found = recover(tmp_path, since=0)
    with a_writer(tmp_path, first_serial=found.next_serial, earlier=found.segments) as writer:
        writer.append(record(1))

    assert len(segment_files(tmp_path)) == 2
    assert texts(tmp_path) == ["0", "1"]


def test_a_full_disk_is_named_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails half-way."""
    told: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with a_writer(tmp_path, tell=told.append) as writer:
        writer.append(record(0))
        safe(writer)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            writer.append(record(1, 5000))
            safe(writer)
            writer.append(record(2))
            assert writer.durable == 3, "nobody waits"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(told) == 1
        assert str(tmp_path) in told[0]
        assert os.strerror(errno.EFBIG) in told[0]
        assert texts(tmp_path) == ["0"], "the half that was written is cut"

        at = writer.begin_segment(checkpoint=7)
        writer.append(record(3))
        safe(writer)
    assert at == 3
    assert texts(tmp_path, since=3) == ["3"], "the next checkpoint begins it anew"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").write_text("in the way")
    with a_writer(tmp_path / "file" / "journal", tell=told.append) as writer:
        writer.append(record(0))
        safe(writer)
    assert len(told) == 1
    assert os.strerror(errno.ENOTDIR) in told[0]
