"""What the coordinator asks of a journal."""

from collections.abc import Callable
from typing import Protocol

from learner.journal.format import Record


class Journal(Protocol):
    """Something that keeps records, and says up to where they are safe."""

    on_durable: Callable[[], None]
    """Called, from any thread, when ``durable`` has grown."""

    @property
    def appended(self) -> int:
        """Serial of the next record."""
        ...

    @property
    def durable(self) -> int:
        """Everything before this serial is safe."""
        ...

    @property
    def is_full(self) -> bool:
        """So much waits for the disk that no more should be taken in."""
        ...

    def append(self, record: Record) -> int:
        """Take a record; returns what ``durable`` must reach for it to be safe."""
        ...

    def begin_segment(self, checkpoint: int) -> int:
        """The checkpoint of that step is made now; returns the serial that it goes on from."""
        ...

    def forget_before(self, checkpoint: int) -> None:
        """``checkpoint`` is the oldest that is kept: what only earlier ones need may go."""
        ...


class NoJournal:
    """Keeps nothing and lets nobody wait."""

    appended = durable = 0
    is_full = False

    def __init__(self) -> None:
        """Nothing is kept."""
        self.on_durable: Callable[[], None] = lambda: None

    def append(self, record: Record) -> int:
        """Forget it."""
        return 0

    def begin_segment(self, checkpoint: int) -> int:
        """Nothing goes on from here."""
        return 0

    def forget_before(self, checkpoint: int) -> None:
        """There is nothing."""
