"""Writes the journal of a run: a thread of its own, which tells how far everything is on the disk.

consumes   records, in order, from whoever decides (``append``)
produces   segment files ``segment-000000.journal`` ..., and ``durable``
waits for  records; the disk
unblocked by  the coordinator; ``on_durable`` unblocks who waits for the disk

Records that come within ``GROUP_COMMIT_S`` of each other share one write and one fdatasync. When
the disk does not take them, that is said with its cause and nobody waits for it any more; the next
checkpoint begins the journal anew.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from common.whole_file import sync_folder
from learner.journal.commits import Commit, CommitQueue, Forgetting, NewSegment
from learner.journal.format import (
    SEGMENT_HEADER_BYTES,
    Frame,
    Record,
    SegmentHeader,
    encode_record,
    segment_header,
)
from learner.journal.segments import SegmentFile, segment_path

log = logging.getLogger(__name__)

GROUP_COMMIT_S = 0.001
"""How long the first record waits for others to be written with it."""
MOST_WAITING_BYTES = 256 << 20
"""Records that wait for the disk beyond which no more trajectories should be taken in."""
SEGMENT_BYTES = 256 << 20
"""A segment that has grown so large ends."""
CLOSING_S = 30.0
"""How long the end of a run waits for the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalCosts:
    """What writing took so far: CPU seconds of the writer, seconds in its disk calls."""

    records: int = 0
    num_bytes: int = 0
    commits: int = 0
    cpu_s: float = 0.0
    disk_s: float = 0.0


class JournalWriter:
    """Appends records to the newest segment; a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        first_serial: int = 0,
        earlier: tuple[SegmentFile, ...] = (),
        sync: bool = True,
        keep: bool = False,
        tell: Callable[[str], None] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Go on after what is there; the first record begins a segment.

        Args:
            folder: of the segments; made where it is missing.
            first_serial: of the next record.
            earlier: segments that are there.
            sync: whether a record counts as written when the disk has it (fdatasync), or when the
                operating system has.
            keep: whether segments stay that no checkpoint needs.
            tell: gets what a person must know at once.
            segment_bytes: size at which a segment ends.
        """
        self.on_durable: Callable[[], None] = lambda: None
        """Called from the writer's thread when ``durable`` has grown."""
        self.costs = JournalCosts()
        self._folder = folder
        self._queue = CommitQueue(first_serial)
        self._segments = list(earlier)
        self._sync, self._keep, self._tell = sync, keep, tell
        self._segment_bytes = segment_bytes
        self._file = -1
        self._good_bytes = 0
        """Size of the open segment up to the last commit."""
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            log.warning("journal not finished after=%.0f s; the disk hangs", CLOSING_S)
        costs = self.costs
        log.info(
            "journal closed records=%d mib=%.1f commits=%d cpu=%.2f disk=%.2f",
            costs.records, costs.num_bytes / (1 << 20), costs.commits, costs.cpu_s, costs.disk_s,
        )  # fmt: skip

    # ---- called by who decides ---------------------------------------------------------------

    @property
    def appended(self) -> int:
        """Serial of the next record."""
        return self._queue.appended

    @property
    def durable(self) -> int:
        """Everything before this serial is safe."""
        return self._queue.durable

    @property
    def is_full(self) -> bool:
        """So much waits for the disk that no more should be taken in."""
        return self._queue.num_bytes > MOST_WAITING_BYTES

    def append(self, record: Record) -> int:
        """Take a record; what it rests on is safe once ``durable`` has reached what is returned."""
        with self._changed:
            end = self._queue.append(record)
            self._changed.notify_all()
        return end

    def begin_segment(self, checkpoint: int) -> int:
        """The checkpoint of that step is made now; returns the serial that it goes on from."""
        with self._changed:
            self._changed.notify_all()
            return self._queue.begin_segment(checkpoint)

    def forget_before(self, checkpoint: int) -> None:
        """``checkpoint`` is the oldest that is kept: what only earlier ones need may go."""
        with self._changed:
            first = [s.header.first_serial for s in self._segments
                     if s.header.checkpoint == checkpoint]  # fmt: skip
            if first and not self._keep:
                self._queue.forget(min(first))
                self._changed.notify_all()

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) or self._closing)
                if not len(self._queue):
                    break
                closing = self._closing
            if not closing:
                time.sleep(GROUP_COMMIT_S)
            with self._changed:
                batch = self._queue.take()
            self._commit(batch)
            self.on_durable()
        self._end_segment()

    def _commit(self, batch: Commit) -> None:
        began = time.monotonic()
        try:
            self._write(batch)
        except Exception as error:  # whatever it is: who waits for the disk must not wait for ever
            self._give_up(error)
            with self._changed:
                self._queue.failed()
            return
        with self._changed:
            self._queue.committed(batch)
        self._count(batch, time.monotonic() - began)

    def _write(self, batch: Commit) -> None:
        waiting: list[Frame] = []
        serial = batch.end - len(batch.records)
        for entry in batch.entries:
            if isinstance(entry, Record):
                if self._file < 0:
                    self._begin(SegmentHeader(number=self._number(), first_serial=serial))
                waiting += encode_record(entry)
                serial += 1
            elif isinstance(entry, NewSegment):
                self._flush(waiting)
                self._end_segment()
                self._begin(
                    SegmentHeader(
                        number=self._number(),
                        first_serial=entry.first_serial,
                        checkpoint=entry.checkpoint,
                    )
                )
            elif isinstance(entry, Forgetting):
                self._remove_before(entry.serial)
        self._flush(waiting)
        if self._good_bytes > self._segment_bytes:
            self._end_segment()

    def _flush(self, waiting: list[Frame]) -> None:
        if not waiting:
            return
        data = b"".join(waiting)
        self._put(data)
        self._good_bytes += len(data)
        waiting.clear()

    def _put(self, data: bytes) -> None:
        """Write all of it, to the disk where that is asked for."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]
        if self._sync:
            os.fdatasync(self._file)

    # ---- segments ----------------------------------------------------------------------------

    def _number(self) -> int:
        return self._segments[-1].header.number + 1 if self._segments else 0

    def _begin(self, header: SegmentHeader) -> None:
        """Open a segment; its name is on the disk before anything in it counts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = segment_path(self._folder, header.number)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._put(segment_header(header))
        if self._sync:
            sync_folder(self._folder)
        self._good_bytes = SEGMENT_HEADER_BYTES
        with self._changed:
            self._segments.append(SegmentFile(path, header))

    def _end_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._good_bytes = -1, 0

    def _remove_before(self, serial: int) -> None:
        """Remove segments whose successor begins at or before ``serial``."""
        while len(self._segments) > 1 and self._segments[1].header.first_serial <= serial:
            self._segments[0].path.unlink(missing_ok=True)
            with self._changed:
                del self._segments[0]

    def _give_up(self, error: Exception) -> None:
        """Leave the segment as it was at the last commit, and say what is lost by that."""
        if self._file >= 0:
            try:
                os.ftruncate(self._file, self._good_bytes)
            except OSError as second:  # a reader cuts it: it ends in a record that is not whole
                log.warning("the journal's last segment could not be cut: %s", second)
        self._end_segment()
        text = (
            f"the journal in '{self._folder}' cannot be written: {error}. The "
            "run goes on without it: after a crash, what was accepted since the last checkpoint "
            "is sampled again. Mend the disk or make room; the next checkpoint begins it anew"
        )
        log.error("%s", text)
        if self._tell is not None:
            self._tell(text)

    def _count(self, batch: Commit, disk_s: float) -> None:
        before = self.costs
        self.costs = JournalCosts(
            records=before.records + len(batch.records),
            num_bytes=before.num_bytes + batch.num_bytes,
            commits=before.commits + 1,
            cpu_s=time.thread_time(),
            disk_s=before.disk_s + disk_s,
        )
