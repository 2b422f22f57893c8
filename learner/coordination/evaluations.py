"""The held-out evaluations of a run, one after the other: the one under way, and its number.

Pure. What happens is said to whoever keeps the changes of the groups (``GroupBuffer.note``).
"""

from collections.abc import Sequence

from common.wire.codec import Buffer
from common.wire.records import Task, Trajectory
from learner.coordination.buffer import GroupBuffer
from learner.coordination.changes import Evaluated, EvaluationBegun, EvaluationTaken
from learner.coordination.heldout_round import HeldoutRound


class Evaluations:
    """At most one is under way; what comes of an earlier one changes nothing.

    Attributes:
        current: begun and not taken; None where there is none.
        next_number: of the one that is begun next.
    """

    def __init__(self, groups: GroupBuffer) -> None:
        """None was begun; those who keep what happens to ``groups`` are told."""
        self.current: HeldoutRound | None = None
        self.next_number = 0
        self._groups = groups

    def begin(
        self, tasks: Sequence[Task], *, temperature: float, version: int = 0, pinned: bool = False
    ) -> None:
        """Hand out these tasks beside training, from ``version`` on; see ``HeldoutRound``."""
        number = self.next_number
        self.current = HeldoutRound(
            number, tasks, temperature=temperature, version=version, pinned=pinned
        )
        self._groups.note(EvaluationBegun(number=number, version=version))
        self.next_number += 1

    def take(self) -> HeldoutRound | None:
        """The finished evaluation, once; None while it runs or when there is none."""
        if self.current is None or not self.is_over:
            return None
        taken, self.current = self.current, None
        self._groups.note(EvaluationTaken(number=self.next_number - 1))
        return taken

    @property
    def is_over(self) -> bool:
        """All of the current one is in, and it was not taken."""
        return self.current is not None and self.current.done

    @property
    def is_under_way(self) -> bool:
        """One was begun and not taken; one of before a restart, until the next begins."""
        return self.current is not None

    def waiting(self, version: int) -> HeldoutRound | None:
        """The one that has a task to hand out, now that servers sample with ``version``."""
        current = self.current
        return current if current is not None and current.may_ask(version) else None

    def settle(self, trajectory: Trajectory, frames: Sequence[Buffer]) -> None:
        """A usable trajectory of a held-out task, and the frames in which it came."""
        if self.current is not None and self.current.settle(trajectory):
            self._groups.note(Evaluated(trajectory=trajectory, frames=frames))

    def give_back(self, lease_id: str, *, failed: bool) -> None:
        """The lease of a held-out task ended without one; see ``HeldoutRound``."""
        if self.current is not None:
            self.current.give_back(lease_id, failed=failed)
