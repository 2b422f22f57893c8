"""When to save and when to stop, agreed among the ranks; a save that fails does not end training.

consumes   signals to this rank, the clock and the disk of rank 0
produces   checkpoints; a word about each that could not be written
waits for  the other ranks, once a step
unblocked by  the other ranks

A signal may reach one rank or all, the clocks differ, and each rank writes its own part: so what
follows from them is decided together, by the largest of what the ranks say.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import LZeroError
from common.stopping import StopRequest
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from learner.checkpoints.schedule import RETRY_S, SaveSchedule
from learner.checkpoints.state import Progress
from learner.engine.agreement import largest_numbers

log = logging.getLogger(__name__)


class Saver(Protocol):
    """Something that keeps checkpoints; every rank calls ``save`` and ``finish`` together."""

    def save(self, progress: Progress) -> object:
        """Begin to save the state, and where it stands."""
        ...

    def is_busy(self) -> bool:
        """Whether this rank is still writing."""
        ...

    def finish(self) -> None:
        """Wait for the save under way; raises what went wrong with it, on all ranks alike."""
        ...


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all ranks do after a step."""

    save: bool
    stop: bool


@dataclass(slots=True)
class FailedSaves:
    """Saves that could not be written, over all attempts of the run."""

    count: int = 0
    last: str = ""


@dataclass(kw_only=True, slots=True)
class Saving:
    """One object on every rank, each with its own rank's signals; rank 0's clock counts.

    Attributes:
        saver: of this rank.
        schedule: rank 0's; None elsewhere.
        stop: the signals to this rank.
        tell: gets a sentence for the person who watches; rank 0's is called.
    """

    saver: Saver
    schedule: SaveSchedule | None
    stop: StopRequest = field(default_factory=StopRequest)
    tell: Callable[[str], None] = lambda text: None
    failed: FailedSaves = field(default_factory=FailedSaves)

    def all_stop(self, *, here: bool) -> bool:
        """Whether some rank has to stop now; every rank must call it."""
        return bool(largest_numbers(int(here))[0])

    def agree(self, step: int, *, last: bool) -> Agreed:
        """What follows the step; says what became of a save that is over. Every rank calls it."""
        due = self.schedule is not None and self.schedule.is_due(step, time.monotonic())
        mine = (self.stop.asked, due, self.saver.is_busy())
        stop, save, busy = largest_numbers(*map(int, mine))
        if not busy:
            self.settle()
        return Agreed(save=bool(save or last), stop=bool(stop))

    def save(self, progress: Progress) -> None:
        """Begin a save, once the one before is over; every rank must call it."""
        self.settle()
        self.saver.save(progress)
        if self.schedule is not None:
            self.schedule.begun(time.monotonic())

    def settle(self) -> None:
        """Wait for the save under way; one that failed is said, and tried again."""
        try:
            with waiting(WaitKind.CHECKPOINT):
                self.saver.finish()
        except LZeroError as error:
            self._say(error)

    def _say(self, error: LZeroError) -> None:
        if self.schedule is None:
            return
        self.schedule.failed(time.monotonic())
        self.failed.count += 1
        self.failed.last = str(error)
        log.error("%s", error)
        again = f"; training goes on, and {RETRY_S:.0f} s from now the next step is saved"
        self.tell(f"{error}{'' if self.stop.asked else again}")
