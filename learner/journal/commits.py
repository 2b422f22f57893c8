"""What waits to be written, and up to where everything is on the disk. Pure: no file, no clock.

The invariant kept here: ``durable`` never passes a record that was not written, unless the journal
is *suspended*, when nobody can wait for the disk any more. A suspended journal counts records, and
keeps none, until a checkpoint begins a segment; so what is missing shows as a gap in the serials.
"""

from collections import deque
from dataclasses import dataclass

from learner.journal.format import Record


@dataclass(frozen=True, slots=True)
class NewSegment:
    """The next record begins a segment, at the checkpoint of that step."""

    first_serial: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Forgetting:
    """No segment is needed any more whose records are all before this serial."""

    serial: int


Entry = Record | NewSegment | Forgetting


@dataclass(frozen=True, slots=True)
class Commit:
    """Entries in order.

    Attributes:
        end: serial after the last record of them.
        records: those of them that are records.
        num_bytes: size of the records in the file.
    """

    entries: tuple[Entry, ...]
    end: int
    records: tuple[Record, ...]
    num_bytes: int


class CommitQueue:
    """Records on their way to the disk, numbered as they come."""

    def __init__(self, first_serial: int) -> None:
        """The next record has the number ``first_serial``; all before are on the disk."""
        self.appended = first_serial
        """Serial of the next record."""
        self.durable = first_serial
        """Everything before this serial is on the disk, or nobody waits for it any more."""
        self.num_bytes = 0
        """Of the records that are not written yet."""
        self.is_suspended = False
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        """Entries that wait."""
        return len(self._entries)

    def append(self, record: Record) -> int:
        """Take a record; returns what ``durable`` must reach for it to be safe."""
        self.appended += 1
        if self.is_suspended:
            self.durable = self.appended
        else:
            self._entries.append(record)
            self.num_bytes += record.num_bytes
        return self.appended

    def begin_segment(self, checkpoint: int) -> int:
        """A checkpoint is made here: the next record opens a segment. Returns its serial."""
        self.is_suspended = False
        self._entries.append(NewSegment(self.appended, checkpoint))
        return self.appended

    def forget(self, serial: int) -> None:
        """Segments that end before ``serial`` may go."""
        self._entries.append(Forgetting(serial))

    def take(self) -> Commit:
        """Everything that waits, for the disk; ``num_bytes`` counts it until it is there."""
        records = tuple([entry for entry in self._entries if isinstance(entry, Record)])
        num_bytes = sum([record.num_bytes for record in records])
        batch = Commit(tuple(self._entries), self.appended, records, num_bytes)
        self._entries.clear()
        return batch

    def committed(self, batch: Commit) -> None:
        """All of a batch is on the disk; it is the one taken last."""
        self.num_bytes -= batch.num_bytes
        self.durable = max(self.durable, batch.end)

    def failed(self) -> None:
        """The disk does not take the batch taken last: nobody waits until a checkpoint begins anew.

        ``num_bytes`` no longer counts it.
        """
        beginnings = [n for n, entry in enumerate(self._entries) if isinstance(entry, NewSegment)]
        waits = list(self._entries)
        kept = waits[beginnings[-1] :] if beginnings else []
        self._entries = deque(kept)
        self.num_bytes = sum(e.num_bytes for e in kept if isinstance(e, Record))
        self.is_suspended = not beginnings
        first = next((e.first_serial for e in kept if isinstance(e, NewSegment)), self.appended)
        self.durable = max(self.durable, first)
